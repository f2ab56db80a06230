"""The search for poison rows, against a predictor that is made up."""

import random
from dataclasses import replace
from itertools import pairwise
from math import ceil, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.suspects import DOUBT, LOST, PIECES, Part, Suspects


class MadeUp:
    """Dies of some rows, in sub-blocks of a fixed size, and counts its deaths."""

    def __init__(self, poison, sub_block, reason="crashed", tells=True):
        self.poison = set(poison)
        self.sub_block = sub_block
        self.reason = reason
        self.tells = tells  # at which rows it was
        self.deaths = 0
        self.most_parts = 0

    def search(self, suspects, doubted_chunks=0, stop_at_doubt=False):
        """Runs a search to its end; the rows that were given an error, in the order in which they were."""
        lost, done = [], []
        while part := suspects.next_part():
            if suspects.is_doubtful(doubted_chunks):
                if stop_at_doubt:
                    return lost
                suspects.doubted = True
                continue
            self.most_parts = max(self.most_parts, len(suspects.parts))
            if part.is_guilty:
                lost.append(part.start)
                done.append((part.start, part.stop))
                suspects.finish(part, 0)
                continue
            for start in range(part.start, part.stop, self.sub_block):
                stop = min(start + self.sub_block, part.stop)
                if self.poison & set(range(start, stop)):
                    self.deaths += 1
                    suspects.died(part, self.reason, (start, stop) if self.tells else None)
                    break
            else:
                done.append((part.start, part.stop))
                suspects.finish(part, part.rows)
            suspects = Suspects.from_json(suspects.to_json())  # as when another worker goes on
        done.sort()
        assert done[0][0] == 0
        assert all(before[1] == after[0] for before, after in pairwise(done))
        return lost


@given(st.data())
def test_exactly_the_poison_rows_are_found(data):
    rows = data.draw(st.integers(2, 300))
    poison = data.draw(st.sets(st.integers(0, rows - 1), max_size=min(4, rows - 1)))
    predictor = MadeUp(poison, data.draw(st.integers(1, rows)), tells=data.draw(st.booleans()))
    assert sorted(predictor.search(Suspects.begin(rows))) == sorted(poison)


@pytest.mark.parametrize("row", [0, 1, 2_499, 4_999])
def test_one_poison_row_costs_a_death_for_each_division_and_two_for_the_row(row):
    predictor = MadeUp([row], 1_024)
    assert predictor.search(Suspects.begin(5_000)) == [row]
    assert predictor.deaths <= 1 + ceil(log(1_024, PIECES)) + 1


def test_rows_that_were_finished_before_a_death_are_not_suspect():
    suspects = Suspects.begin(100)
    suspects.died(suspects.parts[0], "crashed", (40, 60))
    assert [(part.start, part.stop) for part in suspects.parts] == [
        *((0, 40), (40, 42), (42, 45), (45, 47), (47, 50), (50, 52), (52, 55), (55, 57), (57, 60)),
        (60, 100),
    ]


def test_row_that_did_it_once_gets_a_second_try():
    suspects = Suspects.begin(1)
    part = suspects.next_part()
    suspects.died(part, "timeout")
    part = suspects.next_part()
    assert not part.is_guilty
    suspects.died(part, "timeout")
    assert suspects.next_part().is_guilty


def test_many_poison_rows_among_good_ones_are_found_one_by_one():
    poison = set(range(0, 1_000, 50))
    assert sorted(MadeUp(poison, 64).search(Suspects.begin(1_000))) == sorted(poison)


def test_poison_rows_at_the_beginning_do_not_condemn_the_rest():
    poison = set(range(40))
    assert sorted(MadeUp(poison, 64).search(Suspects.begin(5_000))) == sorted(poison)


def test_chunk_of_which_every_row_kills_is_doubted_after_rows_all_over_it_were_tried():
    predictor = MadeUp(range(5_000), 64)
    lost = predictor.search(Suspects.begin(5_000), stop_at_doubt=True)
    assert len(lost) == DOUBT[0]
    assert predictor.deaths <= 2 * len(lost) + 10
    between = [after - before for before, after in pairwise(sorted(lost))]
    assert max(between) < 5_000 / len(lost) * 4


def test_later_chunks_of_such_a_job_are_doubted_sooner():
    found = [len(MadeUp(range(900), 64).search(Suspects.begin(900), chunks, stop_at_doubt=True)) for chunks in range(6)]
    assert found == [30, 10, 3, 1, 1, 1]


def test_chunk_that_was_doubted_once_is_searched_to_its_end():
    assert sorted(MadeUp(range(100), 64).search(Suspects.begin(100))) == list(range(100))


def test_chunk_with_a_prediction_is_never_doubted():
    suspects = Suspects.begin(100)
    suspects.predicted = True
    suspects.guilty = 99
    assert not suspects.is_doubtful(5)


def test_chunk_that_was_doubted_and_has_a_prediction_after_all_is_doubted_no_more():
    suspects = Suspects.begin(100)
    suspects.doubted = True
    suspects.finish(suspects.parts[0], 0)
    assert suspects.doubted
    suspects = replace(suspects, parts=[Part(0, 2)])
    suspects.finish(suspects.parts[0], 1)
    assert (suspects.doubted, suspects.predicted) == (False, True)


def test_search_for_many_rows_stays_small():
    poison = set(range(0, 20_000, 40))
    predictor = MadeUp(poison, 4_096)
    assert sorted(predictor.search(Suspects.begin(20_000))) == sorted(poison)
    assert predictor.most_parts < 60
    assert predictor.deaths < 8 * len(poison)


def test_rows_that_are_in_no_finished_part_are_tried_again():
    suspects = Suspects([])
    suspects.reopen([(10, 20), (0, 5), (20, 30)], 40)
    assert [(part.start, part.stop) for part in suspects.parts] == [(5, 10), (30, 40)]


def test_only_deaths_in_a_row_count_against_loading():
    suspects = Suspects.begin(10)
    suspects.loads = 2
    suspects.finish(suspects.next_part(), 10)
    assert suspects.loads == 0


def test_row_that_takes_whole_workers_with_it_is_found_by_what_was_being_tried():
    """Nobody reports a death then: the next worker finds that one more was lost, and what it had been trying."""
    poison, rows = 37, 100
    suspects, losses = Suspects.begin(rows), 2
    lost = []
    while part := suspects.next_part():
        if part.is_guilty:
            lost += range(part.start, part.stop)
            suspects.finish(part, 0)
            continue
        suspects.trying = [part.start, part.stop]
        kept = suspects.to_json()
        if part.start <= poison < part.stop:
            losses += 1
            suspects = Suspects.from_json(kept)
            suspects.account_for_losses(losses)
        else:
            suspects.finish(part, part.rows)
    assert lost == [poison]
    assert losses - 2 <= ceil(log(rows, PIECES)) + 3


def test_worker_that_was_lost_between_two_tries_blames_nothing():
    suspects = Suspects.begin(10)
    suspects.account_for_losses(2)
    assert [(part.start, part.stop, part.deaths) for part in suspects.parts] == [(0, 10, 0)]


def test_a_row_is_blamed_for_lost_workers_later_than_for_deaths():
    suspects = Suspects.begin(1)
    for losses in (1, 2, 3):
        assert not suspects.next_part().is_guilty
        suspects.trying = [0, 1]
        suspects.account_for_losses(losses)
    assert suspects.next_part().is_guilty
    assert suspects.next_part().reason == LOST


def test_search_with_random_deaths_of_other_causes_blames_nobody_else():
    """The predictor is killed from outside now and then: the same row twice while it stands alone is not likely."""
    seeded = random.Random(7)
    for _ in range(20):
        suspects, predictor = Suspects.begin(500), MadeUp([123], 64)
        while part := suspects.next_part():
            if part.is_guilty:
                assert (part.start, part.stop) == (123, 124)
                suspects.finish(part, 0)
            elif part.rows > 1 and seeded.random() < 0.1:
                suspects.died(part, "crashed")
            elif part.start <= 123 < part.stop:
                predictor.deaths += 1
                suspects.died(part, "crashed")
            else:
                suspects.finish(part, part.rows)
