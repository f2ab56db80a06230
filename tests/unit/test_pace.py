"""How long a step of the predictor may take."""

from worker.child import Doing
from worker.pace import LOAD_SECONDS, ROW_LIMIT_SECONDS, SUB_BLOCK_LIMIT_SECONDS, UNMEASURED_SECONDS, Pace


def seconds(pace, stage, rows, times=1.0):
    return pace.limit("m@1:a", times)(Doing(1, stage, 0, rows))


def test_row_of_a_slow_model_may_take_ten_times_what_its_rows_took():
    pace = Pace()
    pace.learn("m@1:a", 100, 50.0)
    assert seconds(pace, "predict", 1) == 5.0


def test_row_of_a_fast_model_may_take_seconds_all_the_same():
    pace = Pace()
    pace.learn("m@1:a", 1_000_000, 1.0)
    assert seconds(pace, "predict", 1) == ROW_LIMIT_SECONDS


def test_sub_block_may_take_a_second_since_its_size_follows_the_models_speed():
    assert seconds(Pace(), "predict", 5_000) == SUB_BLOCK_LIMIT_SECONDS


def test_what_nobody_has_measured_may_take_longer():
    assert seconds(Pace(), "predict", 1) == UNMEASURED_SECONDS
    assert seconds(Pace(), "singles", 200) == UNMEASURED_SECONDS


def test_speed_of_chunks_says_nothing_of_single_predictions():
    pace = Pace()
    pace.learn("m@1:a", 100, 50.0)
    assert seconds(pace, "singles", 1) == UNMEASURED_SECONDS
    pace.learn("m@1:a", 1, 0.5, singles=True)
    assert seconds(pace, "singles", 4) == 20.0


def test_what_others_measured_counts_until_it_is_measured_here():
    pace = Pace()
    pace.hear("m@1:a", 1.0)
    assert seconds(pace, "predict", 1) == 10.0
    pace.learn("m@1:a", 100, 50.0)
    pace.hear("m@1:a", 1.0)
    assert seconds(pace, "predict", 1) == 5.0


def test_time_of_a_chunk_is_known_once_it_was_measured():
    pace = Pace()
    assert pace.expected("m@1:a", 10) is None
    pace.learn("m@1:a", 100, 50.0)
    assert pace.expected("m@1:a", 10) == 5.0


def test_second_try_may_take_longer_and_loading_much_longer():
    assert seconds(Pace(), "predict", 5_000, times=3) == 3 * SUB_BLOCK_LIMIT_SECONDS
    assert seconds(Pace(), "load", 0) == LOAD_SECONDS
