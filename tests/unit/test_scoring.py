"""What comes out of a chunk: every record once, its cells as they were sent, ours behind them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.codec.cells import split_cells, split_line_end, split_records, unquote
from jobs.codec.layout import plan
from models.catalog import Feature, Manifest
from models.predictor import Predictor
from worker.records import RecordCountDiffers
from worker.scoring import SubBlocks, score


class First:
    """Predicts the first feature; raises for a block in which it is 13 somewhere, and says NaN for 7."""

    def __init__(self, kind=float):
        self.kind = kind

    def predict(self, block):
        x = np.asarray(block)[:, 0]
        if (x == 13).any():
            raise ValueError("13")
        return np.where(x == 7, np.nan, x / 3) if self.kind is float else x.astype(self.kind)


def manifest(**changes):
    fields = {
        "name": "first",
        "version": "1",
        "sha256": "0" * 64,
        "artifact": "model.pkl",
        "task": "regression",
        "features": (Feature("x", "number", None, None, None, False, True),),
        "target": "y",
        "classes": None,
        "has_probabilities": False,
        "accepts_infinite": False,
        "needs_frame": False,
        "metrics": {},
        "rows": None,
        "library_versions": {},
        "created_at": "",
        "description": "",
    }
    return Manifest(**{**fields, **changes})


def scored(chunk, layout, estimator=None, model=None):
    predictor = Predictor(model or manifest(), estimator or First())
    count = len(split_records(chunk, layout.delimiter.encode()))
    return score(chunk, count, layout, predictor, sub_blocks=SubBlocks(), begin=lambda stage, start, stop: None)


def layout(keep="all", delimiter=",", line_end="\n"):
    return plan(
        format="csv",
        names=("id", "x", "note"),
        features=("x",),
        classes=None,
        has_probabilities=False,
        keep=keep,
        delimiter=delimiter,
        line_end=line_end,
    )


ROWS = st.lists(
    st.tuples(
        st.one_of(st.integers(-30, 30).map(str), st.floats(-1e9, 1e9).map(repr), st.sampled_from(["7", "13", "x", ""])),
        st.sampled_from(["plain", "", "é€", " "]),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(
    rows=ROWS,
    plain=st.booleans(),
    quoted=st.booleans(),
    keep=st.sampled_from(["all", "none", ["id"], ["note", "x"]]),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
)
def test_every_record_comes_out_once_as_it_was_sent(*, rows, plain, quoted, keep, delimiter, line_end, ended):
    if plain:  # nothing is wrong: the way in bulk
        rows = [(cell if cell not in ("7", "7.0", "13", "13.0", "x", "") else "1", note) for cell, note in rows]
    records = [
        delimiter.join([str(place), cell, f'"{note}"' if quoted else note]) for place, (cell, note) in enumerate(rows)
    ]
    chunk = (line_end.join(records) + (line_end if ended else "")).encode()
    chosen = layout(keep, delimiter, line_end)
    found = scored(chunk, chosen)
    came_out = split_records(found.records, delimiter.encode())
    assert len(came_out) == len(rows)
    failed = {failure.row: failure.code for failure in found.failures}
    for place, (record, sent) in enumerate(zip(came_out, records, strict=True)):
        body, end = split_line_end(record)
        assert end == line_end.encode()
        cells = split_cells(body, delimiter.encode())
        kept = sent.encode().split(delimiter.encode())
        names = {"all": ["id", "x", "note"], "none": []}.get(keep if isinstance(keep, str) else "", keep)
        expected = [kept[["id", "x", "note"].index(name)] for name in ["id", "x", "note"] if name in names]
        assert cells[:-2] == expected
        prediction, error = unquote(cells[-2]), unquote(cells[-1])
        code = {"x": "invalid_number", "": "missing_value"}.get(rows[place][0])
        code = code or {7.0: "not_finite", 13.0: "model_error"}.get(float(rows[place][0]))
        assert (failed.get(place), error.split(":")[0] or None) == (code, code)
        assert prediction == "" if code else float(prediction) == float(rows[place][0]) / 3
    assert found.ok == len(rows) - len(failed)


@pytest.mark.parametrize("kind", [np.int64, np.int32, ">i8", np.uint64])
def test_whole_numbers_come_out_as_they_are(kind):
    assert scored(b"1,5,a\n2,9,b\n", layout(["id"]), First(kind)).records == b"1,5,\n2,9,\n"


class Chosen:
    """Predicts the answer that the first feature is the place of; raises for a block in which that is 13 somewhere."""

    def __init__(self, answers):
        self.answers = answers

    def predict(self, block):
        places = np.asarray(block)[:, 0].astype(int)
        if (places == 13).any():
            raise ValueError("13")
        return self.answers[places]


class OneByOne(SubBlocks):
    """Each row is a sub-block of its own, as of a model that is slow."""

    def learn(self, rows, seconds):
        pass


@pytest.mark.parametrize("sub_blocks", [SubBlocks, OneByOne])
@pytest.mark.parametrize("failing", [(0,), (1,), (3,), (0, 1, 3), ()])
@pytest.mark.parametrize(
    "answers",
    [
        np.array([1, 2**53 + 1, -3]),
        np.array([1, 2**64 - 1, 3], np.uint64),
        np.array([1.0, 2.5, 1e300]),
        np.array([False, True, False]),
        np.array(["a", "bcd", ""]),
        np.array([1, "b", 2.5, True], object),
    ],
    ids=lambda answers: answers.dtype.name,
)
def test_prediction_keeps_its_type_beside_rows_that_have_none(answers, failing, sub_blocks):
    def cells(rows):
        chunk = "".join(f"0,{row},n\n" for row in rows).encode()
        chosen, predictor = layout("none"), Predictor(manifest(), Chosen(answers))
        found = score(chunk, len(rows), chosen, predictor, sub_blocks=sub_blocks(), begin=lambda *_: None)
        return [split_cells(record, b",")[0] for record in split_records(found.records, b",")]

    rows = [0, 1, 2]
    for place in failing:
        rows.insert(place, 13)
    expected = [b"" if row == 13 else cells([row])[0] for row in rows]
    assert cells(rows) == expected


def test_classes_with_delimiters_and_quotes_are_quoted():
    class Texts:
        classes_ = np.array(["a,b", 'say "hi"'])

        def predict(self, block):
            return self.classes_[(np.asarray(block)[:, 0] > 1).astype(int)]

        def predict_proba(self, block):
            positive = (np.asarray(block)[:, 0] > 1).astype(float)
            return np.vstack([1 - positive, positive]).T

    model = manifest(task="classification", classes=("a,b", 'say "hi"'), has_probabilities=True)
    chosen = plan(
        format="csv",
        names=("x",),
        features=("x",),
        classes=model.classes,
        has_probabilities=True,
        delimiter=";",
    )
    found = scored(b"1\n2\n", chosen, Texts(), model)
    assert found.records == b'1;a,b;1.0;0.0;\n2;"say ""hi""";0.0;1.0;\n'


def test_each_step_is_told_before_it_is_taken_with_the_rows_of_the_chunk():
    told = []
    blocks = SubBlocks()
    blocks.rows = 2
    score(
        b"1,5,a\n2,x,b\n3,5,a\n4,5,a\n",
        4,
        layout(),
        Predictor(manifest(), First()),
        sub_blocks=blocks,
        begin=lambda *step: told.append(step),
    )
    # The second row is wrong and never reaches the model.
    assert told == [("predict", 0, 3), ("predict", 3, 4), ("write", 0, 4)]


def test_first_sub_block_of_a_model_that_nobody_has_measured_is_one_row():
    assert SubBlocks().rows == 1


def test_chunk_with_another_number_of_records_is_refused():
    with pytest.raises(RecordCountDiffers):
        score(
            b"1,5,a\n",
            2,
            layout(),
            Predictor(manifest(), First()),
            sub_blocks=SubBlocks(),
            begin=lambda stage, start, stop: None,
        )


def test_sub_blocks_follow_the_models_speed():
    blocks = SubBlocks()
    blocks.learn(32, 0.0001)
    assert blocks.rows == 256
    blocks.learn(256, 1.0)
    assert blocks.rows == 10
    blocks.learn(10, 100.0)
    assert blocks.rows == 1
