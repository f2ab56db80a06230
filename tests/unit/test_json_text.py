"""JSON texts that other readers let pass are refused, and what is read is written as it was sent."""

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.codec.json_text import MAX_DEPTH, InvalidJson, Number, dumps, loads

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150)
@given(values)
def test_what_is_written_reads_back_in_the_standard_reader(value):
    assert json.loads(dumps(value)) == value


@settings(max_examples=150)
@given(values)
def test_what_is_read_is_written_as_it_was_sent(value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert dumps(loads(text)) == text
    assert dumps(loads(text.encode())) == text


@pytest.mark.parametrize("number", ["1.50", "-0", "-0.0", "1E5", "1e-999", "0.1e+2", "12345678901234567890", "9" * 300])
def test_number_keeps_its_text(number):
    value = loads(f'{{"a": [{number}]}}')
    assert value == {"a": [number]}
    assert isinstance(value["a"][0], Number)
    assert dumps(value) == f'{{"a":[{number}]}}'


def test_text_of_a_number_stays_a_text():
    value = loads('"7"')
    assert not isinstance(value, Number)
    assert dumps(value) == '"7"'


def test_more_digits_than_python_converts_are_read():
    assert loads("0." + "1" * 10_000) == "0." + "1" * 10_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "{'a': 1}",
        "01",
        "1.",
        ".5",
        "+1",
        "[1] 2",
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        "1e999",
        "-1e999",
        "1" * 400,
        '{"a": 1, "b": 2, "a": 1}',
        '"\n"',
        '"\\x"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\\\\\uD800"',
        '{"\\udfff": 1}',
        '"\ud800"',
        "\ufeff1",
        "\u00a01",
        b"\xef\xbb\xbf1",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"1\x00",
    ],
)
def test_what_is_not_strict_json_is_refused(text):
    with pytest.raises(InvalidJson):
        loads(text)


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\\\ud800"', '"\\u00e9 \\\\\\\\ud800"', '"\U0001f600"'])
def test_whole_surrogate_pairs_and_escaped_backslashes_are_accepted(text):
    assert loads(text) == json.loads(text)


def nested(depth):
    return '{"a":[' * (depth // 2) + '"]}"' + "]}" * (depth // 2)


def test_nesting_is_accepted_up_to_the_limit_and_refused_behind_it():
    assert loads(nested(MAX_DEPTH)) == json.loads(nested(MAX_DEPTH))
    with pytest.raises(InvalidJson, match="levels deep"):
        loads(nested(MAX_DEPTH + 2))


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 200_000, nested(200_000)])
def test_very_deep_nesting_is_refused_like_any_other(text):
    with pytest.raises(InvalidJson, match="levels deep"):
        loads(text)


def test_brackets_beside_each_other_or_in_strings_are_no_nesting():
    flat = "[" + ",".join(['[{"a":"[[[{\\"[["}]'] * 200) + "]"
    assert loads(flat) == json.loads(flat)


@pytest.mark.parametrize(
    "text",
    [
        "[]," * 65 + '"' + '\\"' * 500_000,
        "[]," * 65 + '"\\' * 300_000,
        "1" * 1_000_000,
        '"' + "\\ud83d" * 150_000 + '"',
    ],
)
def test_hostile_texts_are_refused_in_no_time(text):
    started = time.process_time()
    with pytest.raises(InvalidJson):
        loads(text)
    assert time.process_time() - started < 1  # a search that goes back takes minutes


def test_refusal_tells_where_and_repeats_no_value():
    for text in ('{"a": geheim}', '{"a": "geheim', '{"a": "geheim", "a": "geheim"}', '["geheim", 1e999]'):
        with pytest.raises(InvalidJson) as caught:
            loads(text)
        assert "geheim" not in caught.value.detail
    with pytest.raises(InvalidJson, match="character 7"):
        loads('{"a": x}')


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_float_that_json_has_no_word_for_is_not_written(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps([value])


def test_key_that_is_no_text_is_not_written():
    with pytest.raises(TypeError):
        dumps({1: 2})


def test_float_is_written_so_that_it_reads_back_the_same():
    assert dumps([0.1, 1e22, 5e-324, -0.0]) == "[0.1,1e+22,5e-324,-0.0]"


def test_text_is_written_as_it_is_and_compactly():
    assert dumps({"é": ["日", '"'], "t": (True, None)}) == '{"é":["日","\\""],"t":[true,null]}'
