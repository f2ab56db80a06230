"""Chunks read in bulk give what the rules give cell by cell."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.codec.cells import split_cells, split_line_end, split_records, unquote
from jobs.codec.inputs import fitted
from jobs.codec.layout import plan
from models.catalog import Feature, Manifest
from models.rows import RowError, read_row
from worker.reading import read_chunk
from worker.records import RecordCountDiffers

NAMES = ("id", "kind", "size", "age", "note")
NUMBERS = ["1", "-2.5", "+3", "007", " 4 ", "\t5", "1e5", "1E-7", ".5", "6.", "123456789.123456789", "5e-324", "0"]
ODD = ["", "abc", "1_0", "inf", "-Infinity", "nan", "NA", "n/A", "None", " null ", "-nan", "1e999", "0x10", "1,5", "٣"]
ODD += ["nan(3)", "1 2", "--1", "\x0b7", "1f", "infinity", "é"]
TEXTS = ["gas", "oil", "\ufeff", "", "wood", " gas", '5" pipe', "a,b", 'say "hi"', "two\nlines", "é€"]


def manifest(size_missing=False, age_missing=True, infinite=False):
    return Manifest(
        name="rent",
        version="1",
        sha256="0" * 64,
        artifact="model.pkl",
        task="regression",
        features=(
            Feature("size", "number", None, None, None, size_missing, True),
            Feature("kind", "text", None, None, ("gas", "oil"), True, False),
            Feature("age", "number", None, None, None, age_missing, True),
        ),
        target="rent",
        classes=None,
        has_probabilities=False,
        accepts_infinite=infinite,
        needs_frame=True,
        metrics={},
        rows=None,
        library_versions={},
        created_at="",
        description="",
    )


def layout(keep="all", delimiter=",", line_end="\n"):
    return plan(
        format="csv",
        names=NAMES,
        features=("size", "kind", "age"),
        classes=None,
        has_probabilities=False,
        keep=keep,
        delimiter=delimiter,
        line_end=line_end,
    )


def by_the_rules(chunk, layout, manifest):
    """What each record is, one after the other: its values or error code, and its kept cells."""
    outcomes, kept = [], []
    delimiter = layout.delimiter.encode()
    for record in split_records(chunk, delimiter):
        body, _ = split_line_end(record)
        found = split_cells(body, delimiter)
        chosen, _ = fitted(layout, body)
        kept.append(delimiter.join([chosen[index] for index in layout.keep]))
        try:
            if len(found) != len(NAMES):
                raise RowError("wrong_cell_count", None, "")
            outcomes.append(read_row([unquote(found[NAMES.index(name)]) for name in layout.features], manifest))
        except RowError as error:
            outcomes.append((error.code, error.column))
    return outcomes, kept


def in_bulk(chunk, layout, manifest):
    count = len(split_records(chunk, layout.delimiter.encode()))
    reading = read_chunk(chunk, count, layout, manifest)
    outcomes = [None] * count
    for place, error in reading.errors.items():
        outcomes[place] = (error.code, error.column)
    places = range(count) if reading.rows is None else reading.rows.tolist()
    for place, *values in zip(places, *(column.tolist() for column in reading.columns), strict=True):
        outcomes[place] = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    return outcomes, list(reading.kept()) or [b""] * count


def quoted(text, always=False):
    if always or (any(mark in text for mark in ',\n\r"') and not text.startswith("5")):
        return '"' + text.replace('"', '""') + '"'
    return text


@st.composite
def chunks(draw):
    plain = draw(st.booleans())
    number = st.sampled_from(NUMBERS) if plain else st.one_of(st.sampled_from(NUMBERS), st.sampled_from(ODD))
    number = st.one_of(number, st.floats(allow_nan=False, allow_infinity=False).map(repr))
    quoting = draw(st.booleans())
    text = st.sampled_from(TEXTS) if quoting else st.sampled_from(["gas", "oil", "", "wood", "é€"])
    end = draw(st.sampled_from(["\n", "\r\n"]))
    records = []
    for place in range(draw(st.integers(1, 12))):
        cells = [str(place), quoted(draw(text)), draw(number), draw(number), quoted(draw(text))]
        cells = [quoted(cell, always=quoting and draw(st.booleans())) if '"' not in cell else cell for cell in cells]
        cells = ['"1,5"' if cell == "1,5" else cell for cell in cells]
        cells = list(cells) + draw(st.sampled_from([[]] * 8 + [["more"], ["a", "b"]]))
        cells = cells[: draw(st.sampled_from([len(cells)] * 8 + [2]))]
        records.append(",".join(cells) + (draw(st.sampled_from(["\n", "\r\n"])) if quoting else end))
    chunk = "".join(records)
    return (chunk.rstrip("\r\n") if draw(st.booleans()) and chunk.rstrip("\r\n") else chunk).encode()


@settings(max_examples=400, deadline=None)
@given(
    chunk=chunks(),
    keep=st.sampled_from(["all", "none", ["id"], ["note", "size"], ["kind", "id", "age"]]),
    size_missing=st.booleans(),
    age_missing=st.booleans(),
    infinite=st.booleans(),
)
def test_bulk_reading_agrees_with_the_rules(chunk, keep, size_missing, age_missing, infinite):
    chosen, model = layout(keep), manifest(size_missing, age_missing, infinite)
    assert in_bulk(chunk, chosen, model) == by_the_rules(chunk, chosen, model)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters='",\n\r\0', exclude_categories=["Cs"]), max_size=12), min_size=1)
)
def test_what_the_parser_takes_for_a_number_is_one_by_the_rules(texts):
    chunk = "".join(f"1,gas,{text},2,x\n" for text in texts).encode()
    assert in_bulk(chunk, layout(), manifest()) == by_the_rules(chunk, layout(), manifest())


def test_numbers_are_read_exactly():
    chance = np.random.default_rng(3)
    numbers = (chance.normal(size=2000) * 10.0 ** chance.integers(-300, 300, 2000)).tolist()
    chunk = "".join(f"1,gas,{number!r},2,x\n" for number in numbers).encode()
    assert read_chunk(chunk, 2000, layout(), manifest()).columns[0].tolist() == numbers


@pytest.mark.parametrize("chunk", [b"1,gas,2,3,x\n", b'1,gas,2,3,"x"\n', b"1,gas\n"])
@pytest.mark.parametrize("keep", ["all", "none", ["id"]])
def test_chunk_with_other_records_than_were_counted_is_refused(chunk, keep):
    with pytest.raises(RecordCountDiffers):
        read_chunk(chunk, 2, layout(keep), manifest())


def test_chunk_without_a_single_even_record_is_read():
    outcomes, kept = in_bulk(b"1,gas\n2,oil\n", layout(["id"]), manifest())
    assert outcomes == [("wrong_cell_count", None)] * 2
    assert kept == [b"1", b"2"]


@pytest.mark.parametrize("keep", ["all", ["id"]])
def test_byte_order_mark_at_the_start_of_a_chunk_is_a_character(keep):
    chunk = "\ufeff1,gas,2,3,x\n\ufeff1,gas,2,3,x\n".encode()
    chosen = layout(keep)
    assert in_bulk(chunk, chosen, manifest()) == by_the_rules(chunk, chosen, manifest())


def test_thousands_of_features_with_odd_cells_are_read():
    names = tuple(f"f{number}" for number in range(3000))
    features = tuple(Feature(name, "number", None, None, None, False, True) for name in names)
    wide = plan(format="csv", names=names, features=names, classes=None, has_probabilities=False)
    chunk = (",".join([""] * 3000) + "\n" + ",".join(["1"] * 3000) + "\n").encode()
    reading = read_chunk(chunk, 2, wide, replace(manifest(), features=features))
    assert reading.errors[0].code == "missing_value"
    assert [column.tolist() for column in reading.columns] == [[1.0]] * 3000
