"""The CSV rules, one by one: a file is refused with the reason, or each record gives exactly one record."""

import csv
import io
import json

import pytest


def outcomes(client, path):
    return [row["error"]["code"] if row["error"] else row["prediction"] for row in client.rows(path)]


# What is sent, and what comes out of the model that gives `x` back.
ACCEPTED = {
    "LF": (b"x\n1\n2\n", b"x,prediction,error\n1,1.0,\n2,2.0,\n"),
    "CRLF": (b"x\r\n1\r\n2\r\n", b"x,prediction,error\r\n1,1.0,\r\n2,2.0,\r\n"),
    "mixed line ends": (b"x\r\n1\n2\r\n", b"x,prediction,error\r\n1,1.0,\n2,2.0,\r\n"),
    "last line end missing": (b"x\n1\r\n2", b"x,prediction,error\n1,1.0,\r\n2,2.0,\n"),
    "last line end missing, CRLF": (b"x\r\n1\n2", b"x,prediction,error\r\n1,1.0,\n2,2.0,\r\n"),
    "byte order mark": (b"\xef\xbb\xbfx\n1\n", b"x,prediction,error\n1,1.0,\n"),
    "byte order mark and quote": (b'\xef\xbb\xbf"x"\n1\n', b'"x",prediction,error\n1,1.0,\n'),
    "blank lines": (b"\n\r\nx\n\n1\n\r\n\n2\n\n\r\n", b"x,prediction,error\n1,1.0,\n2,2.0,\n"),
    "blank last line without end": (b"x\n1\n\n2\n\n", b"x,prediction,error\n1,1.0,\n2,2.0,\n"),
    "blank line in quotes": (b'x,t\n1,"a\n\r\n\nb"\n', b'x,t,prediction,error\n1,"a\n\r\n\nb",1.0,\n'),
    "delimiter in quotes": (b'x,t\n1,"a,b,,c"\n', b'x,t,prediction,error\n1,"a,b,,c",1.0,\n'),
    "doubled quotes": (b'x,t\n1,"say ""hi"""\n2,""""\n', b'x,t,prediction,error\n1,"say ""hi""",1.0,\n2,"""",2.0,\n'),
    "line ends in quotes": (
        b'x,t\n1,"a\r\nb\nc\rd"\n2,e\n',
        b'x,t,prediction,error\n1,"a\r\nb\nc\rd",1.0,\n2,e,2.0,\n',
    ),
    "CSV in quotes": (b'x,t\n1,"""a"",\n""b"",1\n"\n', b'x,t,prediction,error\n1,"""a"",\n""b"",1\n",1.0,\n'),
    "quote in an unquoted cell": (
        b'x,t\n1,5" pipe\n2,a"b"c\n3,x""y\n4, "z"\n5,end"\n',
        b'x,t,prediction,error\n1,5" pipe,1.0,\n2,a"b"c,2.0,\n3,x""y,3.0,\n4, "z",4.0,\n5,end",5.0,\n',
    ),
    "one odd quote in many rows": (
        b'x,t\n1,5" pipe\n' + b'2,"a,b"\n' * 3 + b'3,6"\n',
        b'x,t,prediction,error\n1,5" pipe,1.0,\n' + b'2,"a,b",2.0,\n' * 3 + b'3,6",3.0,\n',
    ),
    "quoted number": (b'x\n"1"\n" 2 "\n', b'x,prediction,error\n"1",1.0,\n" 2 ",2.0,\n'),
    "empty cells": (b't,u,x,v\n,"",1,\n', b't,u,x,v,prediction,error\n,"",1,,1.0,\n'),
    "quoted header": (b'"x","a ""b"", c"\n1,d\n', b'"x","a ""b"", c",prediction,error\n1,d,1.0,\n'),
    "line end in the header": (b'"a\nb",x\r\n0,1\r\n', b'"a\nb",x,prediction,error\r\n0,1,1.0,\r\n'),
    "columns in any order": (b"c,b,x,a\n3,2,1,0\n", b"c,b,x,a,prediction,error\n3,2,1,0,1.0,\n"),
    "names that differ in case": (b"X, x,x\n5,6,1\n", b"X, x,x,prediction,error\n5,6,1,1.0,\n"),
    "numbers as they were written": (
        b"x\n 1.50\t\n+1e0\n007\n",
        b"x,prediction,error\n 1.50\t,1.5,\n+1e0,1.0,\n007,7.0,\n",
    ),
    "text of any language": (
        "naïve,x\n€ 北京 🙂,1\n".encode(),
        "naïve,x,prediction,error\n€ 北京 🙂,1,1.0,\n".encode(),
    ),
    # Python's str.splitlines() would end lines at each of these.
    "other line separators": (
        "t,x\na\x0bb\x0cc\x1cd\x85e\u2028f\u2029g,1\n".encode(),
        "t,x,prediction,error\na\x0bb\x0cc\x1cd\x85e\u2028f\u2029g,1,1.0,\n".encode(),
    ),
    "mark inside": ("t,x\n\ufeffa,1\n".encode(), "t,x,prediction,error\n\ufeffa,1,1.0,\n".encode()),
}


@pytest.mark.parametrize(("sent", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_each_record_gives_one_record(client, sent, expected):
    assert client.results(client.done(sent, "?model=identity")) == expected


@pytest.mark.parametrize(
    ("word", "delimiter"), [("comma", b","), ("semicolon", b";"), ("tab", b"\t"), ("bar", b"|"), ("", b",")]
)
def test_delimiter_is_the_one_that_is_named(client, word, delimiter):
    others = b",;\t|".replace(delimiter, b"")
    records = [[b"x", b"t"], [b"1", others], [b"2", b'"a' + delimiter + b'b"']]
    ours = [[b"prediction", b"error"], [b"1.0", b""], [b"2.0", b""]]
    sent = b"".join(delimiter.join(record) + b"\n" for record in records)
    path = client.done(sent, f"?model=identity&delimiter={word}")
    assert client.results(path) == b"".join(
        delimiter.join([*record, *added]) + b"\n" for record, added in zip(records, ours, strict=True)
    )
    assert [row["input"]["t"] for row in client.rows(path)] == [others.decode(), f"a{delimiter.decode()}b"]


MIB = 1024 * 1024
# What is sent, the code, and what the detail has to say beside it.
REFUSED = {
    "quote that is never closed": (b'x,t\n1,a\n2,"b\n3,c\n4,d\n', "unclosed_quote", "line 3"),
    "last quote never closed": (b'x,t\n1,"', "unclosed_quote", "line 2"),
    "quote never closed in the header": (b'x,"t\n1,a\n', "unclosed_quote", "line 1"),
    "quote never closed, found late": (b'x,t\n1,"a\nb"\n2,"' + b"c\n" * MIB, "unclosed_quote", "line 4"),
    "text behind a closing quote": (b'x,t\n1,"a"b\n', "stray_quote", "line 2"),
    "space behind a closing quote": (b'x,t\n1,"a" \n', "stray_quote", "line 2"),
    "quote behind a closing quote and text": (b'x,t\n1,"a\nb"\n2,"c"d"\n', "stray_quote", "line 4"),
    "CR within a cell": (b"x,t\n1,a\rb\n", "bare_cr", "line 2"),
    "CR as the line end": (b"x\r1\r2\r", "bare_cr", "line 1"),
    "CR as the last byte": (b"x\n1\r", "bare_cr", "line 2"),
    "CR CR LF": (b"x\n1\r\r\n", "bare_cr", "line 2"),
    "CR behind a quoted cell": (b'x,t\n1,"a"\r2,b\n', "bare_cr", "line 2"),
    "nothing": (b"", "empty_body", ""),
    "a byte order mark alone": (b"\xef\xbb\xbf", "empty_body", ""),
    "blank lines alone": (b"\n\r\n\n", "empty_body", ""),
    "a header without line end": (b"x", "no_rows", ""),
    "a header": (b"x\r\n", "no_rows", ""),
    "a header and blank lines": (b"x\n\n\r\n\n", "no_rows", ""),
    "a name twice": (b"x,t,x\n1,a,2\n", "duplicate_column", "x"),
    "a name twice, quoted once": (b't,x,"t"\na,1,b\n', "duplicate_column", "t"),
    "no name": (b"x,,t\n1,2,3\n", "empty_column_name", "column 2"),
    "a quoted empty name": (b'"",x\n1,2\n', "empty_column_name", "column 1"),
    "a delimiter behind the header": (b"x,\n1,\n", "empty_column_name", "column 2"),
    "NUL": (b"x,t\n1,a\n2,b\0\n", "nul_byte", "line 3"),
    "NUL in quotes": (b'x,t\n1,"a\n\0"\n', "nul_byte", "line 3"),
    "too many columns": (b",".join(b"c%d" % n for n in range(10_001)) + b"\n", "too_many_columns", "10001"),
    "a record too large": (b"x,t\n1,a\n2," + b"b" * MIB + b"\n3,c\n", "record_too_large", "line 3"),
    "a header too large": (b"x," + b"t" * MIB + b"\n1,a\n", "record_too_large", "line 1"),
    "Latin-1": ("x,t\n1,é\n".encode("latin-1"), "encoding", "byte 6"),
    "Latin-1 in the header": ("é,x\n1,2\n".encode("latin-1"), "encoding", "byte 0"),
    "UTF-16 with its mark": ("x\n1\n".encode("utf-16"), "encoding", "byte 0"),
    "UTF-16 without": ("x\n1\n".encode("utf-16-le"), "nul_byte", "line 1"),
    "a character cut short": (b"x,t\n1,\xe2\x82", "encoding", "byte 6"),
    "a surrogate": (b"x,t\n1,\xed\xa0\x80\n", "encoding", "byte 6"),
    "an overlong form": (b"x,t\n1,\xc0\xaf\n", "encoding", "byte 6"),
    "offset counts the byte order mark": (b"\xef\xbb\xbfx\n1\n\xff\n", "encoding", "byte 7"),
}


@pytest.mark.parametrize(("sent", "code", "says"), REFUSED.values(), ids=REFUSED)
def test_file_that_breaks_a_rule_is_refused_with_the_reason(client, sent, code, says):
    answer = client.send(sent, "?model=identity")
    assert (answer.status, answer.code) == (400, code)
    assert says in answer.json["detail"]


def test_refused_files_leave_no_job(client):
    before = client.listed()
    for sent in (b'x,t\n1,a\n2,"b"c\n', b"x\n", b"y\n1\n"):
        assert client.send(sent, "?model=identity").status in (400, 422)
    assert client.listed() == before


def test_record_of_the_largest_size_is_taken(client):
    record = b"1," + b"t" * (MIB - 2)
    path = client.done(b"x,t\n" + record + b"\n", "?model=identity")
    assert client.results(path) == b"x,t,prediction,error\n" + record + b",1.0,\n"


def test_missing_columns_are_all_named(client):
    answer = client.send(b"age,sex,bmi\n1,2,3\n", "?model=diabetes")
    assert (answer.status, answer.code) == (422, "missing_columns")
    missing = ["bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert [error["column"] for error in answer.json["errors"]] == missing
    assert answer.json["errors_total"] == len(missing)
    assert all(name in answer.json["detail"] for name in missing)


@pytest.mark.parametrize(("word", "delimiter"), [("semicolon", b";"), ("tab", b"\t"), ("bar", b"|")])
def test_missing_columns_name_the_delimiter_that_would_do(client, word, delimiter):
    sent = delimiter.join([b"sepal_length", b"sepal_width", b"petal_length", b"petal_width"]) + b"\n1\n"
    answer = client.send(sent, "?model=iris")
    assert (answer.status, answer.code) == (422, "missing_columns")
    assert f"delimiter={word}" in answer.json["detail"]


def test_missing_columns_are_said_before_what_is_wrong_further_down(client):
    answer = client.send(b'y,t\n1,"a"b\n', "?model=identity")
    assert (answer.status, answer.code) == (422, "missing_columns")


UNEVEN = b'a,x,b\n1,2,3\n4,5\n6\n7,8,9,"ten, 10"\n11,12,13,14,15\n16,17,18\n'


@pytest.fixture(scope="module")
def uneven(client):
    """A batch some of whose records have too few or too many cells."""
    return client.done(UNEVEN, "?model=identity")


def test_records_with_too_few_or_too_many_cells_fail_alone(client, uneven):
    assert client.job(uneven)["status"] == "succeeded"
    assert outcomes(client, uneven) == [2.0, *["wrong_cell_count"] * 4, 17.0]


def test_uneven_records_are_padded_and_cut_in_the_results(client, uneven):
    records = list(csv.reader(io.StringIO(client.results(uneven).decode())))
    assert [record[:-1] for record in records] == [
        ["a", "x", "b", "prediction"],
        ["1", "2", "3", "2.0"],
        ["4", "5", "", ""],
        ["6", "", "", ""],
        ["7", "8", "9", ""],
        ["11", "12", "13", ""],
        ["16", "17", "18", "17.0"],
    ]


def test_surplus_cells_are_kept_in_the_errors(client, uneven):
    records = list(csv.reader(io.StringIO(client.get(f"{uneven}/errors").body.decode())))
    assert [record[:-1] for record in records] == [
        ["a", "x", "b", "surplus"],
        ["4", "5", "", ""],
        ["6", "", "", ""],
        ["7", "8", "9", '"ten, 10"'],
        ["11", "12", "13", "14,15"],
    ]
    assert records[0][-1] == "error"
    assert all(record[-1].startswith("wrong_cell_count: ") for record in records[1:])


def test_delimiter_behind_a_quote_that_opens_nothing_still_divides(client):
    assert outcomes(client, client.done(b'x,t\n1, "a,b"\n2,c\n', "?model=identity")) == ["wrong_cell_count", 2.0]


# What a cell of a numeric feature is to a model that accepts neither missing values nor infinite ones.
NUMBERS = {
    "1": 1.0,
    "-1.5": -1.5,
    "+2": 2.0,
    ".5": 0.5,
    "5.": 5.0,
    "1e3": 1000.0,
    "1E-2": 0.01,
    " \t 7 \t": 7.0,
    "007": 7.0,
    "-0.0": -0.0,
    "0.1": 0.1,
    "0.30000000000000004": 0.30000000000000004,
    "5e-324": 5e-324,
    "1e-999": 0.0,
    "1.7976931348623157e308": 1.7976931348623157e308,
    "123456789012345678901234567890": 123456789012345678901234567890.0,
    "9007199254740993": 9007199254740992.0,
    "": "missing_value",
    " ": "missing_value",
    "\t": "missing_value",
    "na": "missing_value",
    "NA": "missing_value",
    "n/a": "missing_value",
    "N/A": "missing_value",
    "nan": "missing_value",
    "NaN": "missing_value",
    "null": "missing_value",
    "NULL": "missing_value",
    "None": "missing_value",
    " none ": "missing_value",
    "inf": "not_finite",
    "-inf": "not_finite",
    "+Infinity": "not_finite",
    "1e309": "not_finite",
    "-1e999": "not_finite",
    "9" * 400: "not_finite",
    "-nan": "not_finite",
    "+nan": "not_finite",
    "abc": "invalid_number",
    "1 2": "invalid_number",
    "1,5": "invalid_number",
    "1_000": "invalid_number",
    "0x10": "invalid_number",
    "1e": "invalid_number",
    "--1": "invalid_number",
    "true": "invalid_number",
    "-": "invalid_number",
    "nanx": "invalid_number",
    "#N/A": "invalid_number",
    "1\n": "invalid_number",
    "\x0b1": "invalid_number",
    "\xa01": "invalid_number",
    "1\u2009": "invalid_number",
    "١٢": "invalid_number",
    "\uff11": "invalid_number",
    "½": "invalid_number",
    "\u22121": "invalid_number",
    "1\u200b": "invalid_number",
}


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def numbers(client):
    """What became of each of the numbers, as CSV cells and as JSON texts."""
    as_csv = "x\n" + "".join(quoted(cell) + "\n" for cell in NUMBERS)
    as_json = "".join(json.dumps({"x": cell}) + "\n" for cell in NUMBERS)
    ways = {"csv": as_csv.encode(), "json": as_json.encode()}
    types = {"csv": "text/csv", "json": "application/x-ndjson"}
    jobs = {way: client.done(sent, "?model=identity", types[way]) for way, sent in ways.items()}
    return {way: dict(zip(NUMBERS, outcomes(client, path), strict=True)) for way, path in jobs.items()}


@pytest.mark.parametrize("way", ["csv", "json"])
@pytest.mark.parametrize(("cell", "expected"), NUMBERS.items(), ids=ascii)
def test_number_is_what_the_rules_say(numbers, way, cell, expected):
    assert repr(numbers[way][cell]) == repr(expected)  # repr also tells -0.0 from 0.0


def test_number_that_is_not_quoted_is_the_same(client):
    cells = [cell for cell in NUMBERS if cell and not set(cell) & set('",\r\n')]
    path = client.done(b"x\n" + "".join(cell + "\n" for cell in cells).encode(), "?model=identity")
    assert [repr(outcome) for outcome in outcomes(client, path)] == [repr(NUMBERS[cell]) for cell in cells]


def test_model_that_accepts_them_gets_missing_and_infinite_values(client):
    cells = ["inf", "-inf", "1e999", "", "nan", "-nan", "abc"]
    path = client.done(("x\n" + "".join(quoted(cell) + "\n" for cell in cells)).encode(), "?model=sign")
    # Compared with 0, NaN is neither larger nor equal.
    assert outcomes(client, path) == [True, False, True, False, False, "not_finite", "invalid_number"]


FLAT = {"area": "50", "rooms": "2", "year_built": "2000", "distance_km": "3", "district": "hill", "heating": "gas"}
# A cell of one column, and whether the row has a prediction or which error.
MIXED = [
    ({}, None),
    ({"rooms": ""}, None),
    ({"rooms": "N/A"}, None),
    ({"area": ""}, "missing_value"),
    ({"area": "na"}, "missing_value"),
    ({"area": "gas"}, "invalid_number"),
    ({"district": ""}, None),
    ({"district": " "}, None),
    ({"district": "na"}, None),
    ({"district": "somewhere else"}, None),
    ({"heating": ""}, "missing_value"),
    ({"heating": " "}, "unknown_category"),
    ({"heating": "null"}, "unknown_category"),
    ({"heating": "Gas"}, "unknown_category"),
    ({"heating": "gas "}, "unknown_category"),
    ({"heating": "heat pump"}, None),
]


def test_texts_are_taken_as_they_are_and_missing_only_when_empty(client):
    sent = io.StringIO(newline="")
    writer = csv.DictWriter(sent, FLAT)
    writer.writeheader()
    writer.writerows(FLAT | changed for changed, _ in MIXED)
    rows = client.rows(client.done(sent.getvalue().encode(), "?model=apartments"))
    for row, (changed, code) in zip(rows, MIXED, strict=True):
        assert (row["error"] and row["error"]["code"], row["error"] and row["error"]["column"]) == (
            code,
            code and next(iter(changed)),
        ), changed
        assert (row["prediction"] is None) == (code is not None)
        assert row["input"] == FLAT | changed


TEXT = 'x,t\r\n1,"naïve, café"\r\n2,x"y\r\n'
EAST = "x,t\n1,日本語\n2,東京\n"


@pytest.mark.parametrize(
    ("charset", "text", "codec"),
    [
        ("utf-8", TEXT, "utf-8"),
        ("UTF-8", TEXT, "utf-8-sig"),
        ('"utf-8"', TEXT, "utf-8"),
        ("utf-16", TEXT, "utf-16"),
        ("utf-16le", TEXT, "utf-16-le"),
        ("UTF-16BE", "\ufeff" + TEXT, "utf-16-be"),
        ("utf-32", TEXT, "utf-32"),
        ("iso-8859-1", TEXT, "latin-1"),
        ("iso-8859-15", TEXT, "iso-8859-15"),
        ("windows-1252", TEXT, "cp1252"),
        ("shift_jis", EAST, "shift_jis"),
        ("euc-jp", EAST, "euc-jp"),
        ("gb18030", EAST, "gb18030"),
        ("big5", EAST, "big5"),
    ],
)
def test_text_of_another_charset_is_converted(client, charset, text, codec):
    path = client.done(text.encode(codec), "?model=identity", f"text/csv; charset={charset}")
    header, *records = text.removeprefix("\ufeff").splitlines(keepends=True)
    ends = ["\r\n" if record.endswith("\r\n") else "\n" for record in records]
    bodies = [record.rstrip("\r\n") for record in records]
    expected = header.rstrip("\r\n") + ",prediction,error" + ends[0]
    expected += "".join(f"{body},{n}.0,{end}" for n, (body, end) in enumerate(zip(bodies, ends, strict=True), 1))
    assert client.results(path).decode() == expected


@pytest.mark.parametrize(
    ("charset", "sent", "status", "code"),
    [
        ("ascii", "x,t\n1,é\n".encode(), 400, "encoding"),
        ("utf-16", b"\xff\xfex\0\n\x001\0\n\0\x00\xd8", 400, "encoding"),
        ("utf-16", "x\n1\n".encode("utf-16-be"), 400, "encoding"),  # without a mark nobody knows the byte order
        ("utf-32", "x\n1\n".encode("utf-32-le"), 400, "encoding"),
        ("utf-16", b"x", 400, "encoding"),
        ("shift_jis", b"x,t\n1,\xff\n", 400, "encoding"),
        ("klingon", b"x\n1\n", 415, "unsupported_charset"),
        ("rot13", b"x\n1\n", 415, "unsupported_charset"),
        ("zlib", b"x\n1\n", 415, "unsupported_charset"),
        ("utf-7", b"x\n1\n", 415, "unsupported_charset"),
    ],
)
def test_text_that_is_not_in_its_charset_is_refused(client, charset, sent, status, code):
    answer = client.send(sent, "?model=identity", f"text/csv; charset={charset}")
    assert (answer.status, answer.code) == (status, code)
    if code == "encoding":
        assert "byte" in answer.json["detail"]
