"""The splitter against a reference that looks at one byte at a time, and each CSV rule of the contract by name."""

import csv
import io
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.codec import scan
from jobs.codec.cells import split_cells, split_line_end, split_lines, split_records, unquote
from jobs.splitter import CsvSplitter, NdjsonSplitter, SplitError

LIMIT = 1000
COLUMNS = 20


class Refused(Exception):
    """Raised when the reference refuses a body."""


@dataclass
class Reference:
    """The CSV rules, one byte after the other. Slow, and plain enough to be checked by reading."""

    delimiter: int
    limit: int
    records: list = field(default_factory=list)  # [raw cells], line end
    line: int = 1
    first_line: int = 1
    cells: list = field(default_factory=lambda: [b""])
    size: int = 0
    state: str = "start"
    opened: int = 0
    carriage_return: bool = False

    def read(self, body, final):
        for number in body:
            self.read_byte(bytes([number]), number)
        if final:
            if self.carriage_return:
                raise Refused("bare_cr", self.line)
            if self.state == "quoted":
                raise Refused("unclosed_quote", self.opened)
            if self.size:
                self.end_record(b"")

    def read_byte(self, byte, number):
        if self.carriage_return:
            if byte != b"\n":
                raise Refused("bare_cr", self.line)
            self.end_record(b"\r\n")
        elif self.state != "quoted" and byte == b"\r":
            self.carriage_return = True
        elif self.state != "quoted" and byte == b"\n":
            self.end_record(b"\n")
        else:
            self.read_content(byte, number)

    def read_content(self, byte, number):
        if self.size == self.limit:
            if self.state == "quoted":
                raise Refused("unclosed_quote", self.opened)
            raise Refused("record_too_large", self.first_line)
        self.size += 1
        if self.state == "quoted":
            self.cells[-1] += byte
            self.line += byte == b"\n"
            self.state = "behind a quote" if byte == b'"' else "quoted"
        elif number == self.delimiter:
            self.cells.append(b"")
            self.state = "start"
        elif self.state == "behind a quote":
            if byte != b'"':
                raise Refused("stray_quote", self.line)
            self.cells[-1] += byte
            self.state = "quoted"
        else:
            opens = self.state == "start" and byte == b'"'
            self.state = "quoted" if opens else "unquoted"
            self.opened = self.line if opens else self.opened
            self.cells[-1] += byte

    def end_record(self, line_end):
        if self.size:
            self.records.append((self.cells, line_end))
            if len(self.records) == 1:
                self.check_header()
        self.cells, self.size, self.state, self.carriage_return = [b""], 0, "start", False
        self.line += 1
        self.first_line = self.line

    def check_header(self):
        names = [text_of(cell) for cell in self.cells]
        if len(names) > COLUMNS:
            raise Refused("too_many_columns", self.first_line)
        if "" in names:
            raise Refused("empty_column_name", self.first_line)
        if len(set(names)) < len(names):
            raise Refused("duplicate_column", self.first_line)


def text_of(cell):
    return (cell[1:-1].replace(b'""', b'"') if cell[:1] == b'"' else cell).decode()


def stop_of(body):
    """Where the body stops being text, and what that is called."""
    stops = [(body.index(0), "nul_byte")] if 0 in body else []
    try:
        body.decode()
    except UnicodeDecodeError as error:
        stops.append((error.start, "encoding"))
    return min(stops, default=(len(body), None))


def reference_outcome(body, delimiter, limit):
    """("refused", code, line, offset), or ("accepted", header cells, records)."""
    stop, stop_code = stop_of(body)
    text = body[:stop].removeprefix(b"\xef\xbb\xbf")
    reference = Reference(ord(delimiter), limit)
    try:
        reference.read(text, final=stop_code is None)
        if stop_code:
            raise Refused(stop_code, 1 + text.count(b"\n"), stop if stop_code == "encoding" else None)
    except Refused as refused:
        return "refused", *refused.args, *[None] * (3 - len(refused.args))
    if len(reference.records) < 2:
        return "refused", "no_rows" if reference.records else "empty_body", None, None
    raw = [(delimiter.encode().join(cells), cells, end) for cells, end in reference.records]
    return "accepted", raw[0][1], [(body + end, cells) for body, cells, end in raw[1:]]


def pieces_of(body, sizes):
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(body):
            return
        yield body[start : start + size]
        start += size


def chunks_of(splitter, body, sizes, room, flush_each=False):
    chunks = []

    def take(flush):
        while chunk := splitter.take(*room, flush):
            chunks.append(chunk)

    for piece in pieces_of(body, sizes):
        splitter.feed(piece)
        take(flush_each)
    splitter.finish()
    take(True)
    return chunks


def outcome(body, delimiter, limit, sizes, room):
    splitter = CsvSplitter(delimiter, limit, COLUMNS)
    try:
        chunks = chunks_of(splitter, body, sizes, room)
    except SplitError as error:
        return "refused", error.code, error.line, error.offset
    check_chunks(chunks, delimiter.encode(), *room)
    records = [record for chunk in chunks for record in split_records(chunk.data, delimiter.encode())]
    cells = [split_cells(split_line_end(record)[0], delimiter.encode()) for record in records]
    assert splitter.header.names == tuple(text_of(cell.encode()) for cell in splitter.header.cells)
    return "accepted", [cell.encode() for cell in splitter.header.cells], list(zip(records, cells, strict=True))


def check_chunks(chunks, delimiter, max_rows, max_bytes):
    for chunk, following in itertools.zip_longest(chunks, chunks[1:]):
        assert 1 <= chunk.rows <= max_rows
        assert len(chunk.data) <= max_bytes or chunk.rows == 1
        assert len(split_records(chunk.data, delimiter)) == chunk.rows
        if following:
            next_bytes = len(split_records(following.data, delimiter)[0])
            assert chunk.rows == max_rows or len(chunk.data) + next_bytes > max_bytes


TOKENS = [
    "\ufeff",
    '"',
    '""',
    ",",
    ";",
    "\n",
    "\r\n",
    "\r",
    "a",
    "1",
    " ",
    "é",
    "日",
    '","',
    '",',
    ',"',
    '"\n',
    '5" ',
    "x" * 30,
]
tame = st.sampled_from(['"a,b"', '"say ""hi"""', '""', '"two\r\nlines"', '5" pipe', "é", "12.5", "", "x" * 40])
tame_body = st.lists(st.lists(tame, min_size=1, max_size=4).map(",".join), min_size=1, max_size=12).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\n\n"]).map(lambda end: end.join(lines))
)
wild_body = st.lists(st.sampled_from(TOKENS), max_size=25).map("".join)
broken = st.sampled_from([b"", b"", b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xe6\x97"])
bodies = st.builds(
    lambda start, head, text, bad, more: start + head + text.encode() + bad + more.encode(),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\r\n\n"]),
    st.sampled_from([b"", b"a,b\n", b'"a","b"\r\n', b"a\n"]),
    tame_body | wild_body,
    broken,
    wild_body | st.just(""),
)
divisions = st.lists(st.integers(1, 9), min_size=1, max_size=6) | st.just([10_000])
limits = st.sampled_from([4, 7, 30, LIMIT])


@settings(max_examples=500, deadline=None)
@given(bodies, st.sampled_from(",;"), limits, divisions, st.tuples(st.integers(1, 5), st.integers(1, 200)))
@example(b'a,b\n1,"x"\r', ",", LIMIT, [1], (1, 1))
@example(b'a,b\n1,"x""', ",", LIMIT, [3], (1, 1))
@example(b'a,b\n1,",",","\n', ",", LIMIT, [100], (1, 1))
@example(b'a,b\n""abc,1\n', ",", LIMIT, [100], (1, 1))
@example(b"a\n1234567\r\n", ",", 7, [1], (1, 1))
@example(b"a\n1234567\rx", ",", 7, [1], (1, 1))
@example(b"a\n12345678\n", ",", 7, [1], (1, 1))
@example(b"a\n12345678\n", ",", 7, [100], (1, 1))
@example(b'a\n"123456"x\n', ",", 7, [100], (1, 1))
@example(b'a\n"123456"x\n', ",", 8, [100], (1, 1))
@example(b'a\n"123456"x\n', ",", 8, [1], (1, 1))
@example(b"a\n\xef\xbb\xbf1\n", ",", LIMIT, [1], (1, 1))
@example(b"a\n\xe6x\n1\n", ",", LIMIT, [1], (1, 1))
def test_splitter_does_what_the_reference_does_however_the_body_is_divided(body, delimiter, limit, sizes, room):
    expected = reference_outcome(body, delimiter, limit)
    assert outcome(body, delimiter, limit, sizes, room) == expected


@settings(max_examples=100, deadline=None)
@given(bodies, divisions, st.tuples(st.integers(1, 5), st.integers(1, 60)))
def test_flushing_after_each_piece_loses_and_repeats_nothing(body, sizes, room):
    expected = reference_outcome(body, ",", LIMIT)
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    if expected[0] == "accepted":
        chunks = chunks_of(splitter, body, sizes, room, flush_each=True)
        assert b"".join(chunk.data for chunk in chunks) == b"".join(record for record, _ in expected[2])


@settings(max_examples=400, deadline=None)
@given((tame_body | wild_body).map(str.encode))
@example(b'5" pipe,6" pipe\n')
@example(b',"abc,"def","x",y",\n')
@example(b'"a",1\r2\n')
@example(b'1\r,"a"\n')
@example(b'1,"a"\r')
@example(b'1,"a"\n"b"x')
@example(b'1,"a"\n"b"x\n')
def test_every_fast_way_finds_what_the_rules_find(block):
    by_rules = scan._by_rules(block, b",", LIMIT)
    ways = [scan.scan(block, b",", LIMIT)]
    if b'"' in block:
        ways.append(scan._by_parity(block, b","))
    else:
        ways.append(scan._without_quotes(block))
    for found in ways:
        assert found is None or found == by_rules


def test_parity_is_proved_for_ordinary_quoted_rows():
    block = b'1,"street, ""5""",2\r\n"two\nlines","",3\n"cut'
    assert scan._by_parity(block, b",") == scan.Scan(block[:-4], 2, len(block) - 4, lines=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text('a,"\r\n é1', max_size=6), min_size=2, max_size=2), min_size=1, max_size=8), divisions)
def test_what_the_csv_module_writes_comes_out_as_it_went_in(rows, sizes):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], *rows])
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    chunks = chunks_of(splitter, text.getvalue().encode(), sizes, (3, 50))
    records = [record for chunk in chunks for record in split_records(chunk.data, b",")]
    cells = [[unquote(cell) for cell in split_cells(split_line_end(record)[0], b",")] for record in records]
    assert cells == rows


def csv_chunk(body, **limits):
    splitter = CsvSplitter(limits.get("delimiter", ","), limits.get("max_record_bytes", LIMIT), COLUMNS)
    splitter.feed(body)
    splitter.finish()
    return splitter, splitter.take(10_000, 1 << 20, flush=True)


def refusal(body, **limits):
    with pytest.raises(SplitError) as caught:
        csv_chunk(body, **limits)
    return caught.value


def test_blank_lines_are_no_records_and_the_rest_is_byte_for_byte():
    splitter, chunk = csv_chunk(b'\n\r\na,"b"\r\n\n1,2\n\r\n\n"3", 4\r\n')
    assert splitter.header.cells == ("a", '"b"')
    assert splitter.header.names == ("a", "b")
    assert splitter.header.line_end == "\r\n"
    assert (chunk.data, chunk.rows) == (b'1,2\n"3", 4\r\n', 2)


def test_missing_last_line_end_is_fine():
    assert csv_chunk(b"a,b\n1,2\n3,4")[1].rows == 2


def test_byte_order_mark_is_removed_even_in_pieces():
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    for byte in b"\xef\xbb\xbfa\n1\n":
        splitter.feed(bytes([byte]))
    splitter.finish()
    assert splitter.header.names == ("a",)


def test_header_is_known_as_soon_as_its_line_is_there():
    splitter = CsvSplitter(";", LIMIT, COLUMNS)
    splitter.feed(b"a;")
    assert splitter.header is None
    splitter.feed(b"b\n")
    assert splitter.header.names == ("a", "b")


def test_quote_within_an_unquoted_cell_is_an_ordinary_character():
    _, chunk = csv_chunk(b'a,b\n5" pipe,1\n6" pipe,2\n')
    assert chunk.rows == 2
    assert split_cells(b'5" pipe,1', b",") == [b'5" pipe', b"1"]


def test_quoted_cell_may_hold_delimiters_quotes_and_line_ends():
    _, chunk = csv_chunk(b'a,b\n"x,""y""\r\n\nz",1\n2,3\n')
    assert split_records(chunk.data, b",") == [b'"x,""y""\r\n\nz",1\n', b"2,3\n"]


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (b"", "empty_body", None),
        (b"\xef\xbb\xbf\r\n\n", "empty_body", None),
        (b"a,b\n", "no_rows", None),
        (b"a,b", "no_rows", None),
        (b"a,b\n\n\r\n", "no_rows", None),
        (b"\n\na,b,a\n1,2,3\n", "duplicate_column", 3),
        (b'a,"a"', "duplicate_column", 1),
        (b",a\n0,1\n", "empty_column_name", 1),
        (b",".join(b"c%d" % n for n in range(COLUMNS + 1)) + b"\n1\n", "too_many_columns", 1),
        (b'a,b\n"x"y,1\n', "stray_quote", 2),
        (b'a,b\n\n"two\nlines" ,1\n', "stray_quote", 4),
        (b'a,b\n""abc,1\n', "stray_quote", 2),
        (b"a,b\n1,2\r3,4\n", "bare_cr", 2),
        (b"a,b\r1,2\r", "bare_cr", 1),
        (b"a,b\n1,2\r", "bare_cr", 2),
        (b"a,b\n1,2\r\r\n", "bare_cr", 2),
        (b'a,b\n1,2\n3,"x\n5,6\n7,8\n', "unclosed_quote", 3),
        (b"a,b\n1,2\n3,\0\n", "nul_byte", 3),
        (b"a,b\n1,2\n3,\xe9\n", "encoding", 3),
        (b"a,b\n1," + b"x" * LIMIT + b"\n", "record_too_large", 2),
        (b'a,b\n"1\n2","' + b"x\n" * LIMIT, "unclosed_quote", 3),
    ],
)
def test_body_is_refused_with_code_and_line(body, code, line):
    error = refusal(body)
    assert (error.code, error.line) == (code, line)


def test_encoding_error_tells_the_offset_in_the_body_with_its_byte_order_mark():
    assert refusal(b"\xef\xbb\xbfa\n\xff").offset == 5
    assert refusal(b"a\n\xe6\x97").offset == 2


def test_quote_that_outgrows_a_record_is_told_from_one_open_at_the_end():
    grown = refusal(b'a,b\n1,"' + b"x\n" * LIMIT + b'"\n')
    at_end = refusal(b'a,b\n1,"x')
    assert (grown.code, grown.line) == (at_end.code, at_end.line) == ("unclosed_quote", 2)
    assert "1000 bytes" in grown.detail
    assert "end of the file" in at_end.detail


def test_quoted_header_read_with_the_wrong_delimiter_says_how_to_name_another():
    assert "?delimiter=" in refusal(b'"a";"b"\n"1";"2"\n').detail


def test_no_detail_repeats_what_a_row_holds():
    for body in (b'a\n"geheim"x\n', b"a\ngeheim\rx\n", b'a\n"geheim', b"a\ngeheim" + b"x" * LIMIT, b"a\ngeheim\0"):
        assert "geheim" not in refusal(body).detail


def test_unclosed_quote_is_refused_before_the_body_ends():
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    splitter.feed(b'a\n"x')
    splitter.feed(b"y" * (LIMIT - 2))
    with pytest.raises(SplitError, match="line 2"):
        splitter.feed(b"y")


def test_stray_quote_is_refused_when_its_line_is_there():
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    with pytest.raises(SplitError, match="line 2"):
        splitter.feed(b'a,b\n"x"y,1\n2,3\n')


def test_large_cell_of_many_lines_in_small_pieces_is_one_record():
    cell = b'"' + b'some ""text""\n' * 30_000 + b'"'
    splitter = CsvSplitter(",", 1 << 20, COLUMNS)
    chunks = chunks_of(splitter, b"a,b\n1,2\n" + cell + b",3\n4,5\n", [1021], (100, 1 << 20))
    assert b"".join(chunk.data for chunk in chunks) == b"1,2\n" + cell + b",3\n4,5\n"
    assert sum(chunk.rows for chunk in chunks) == 3


def test_chunks_stay_within_both_limits():
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    splitter.feed(b"a\n" + b"12345\n" * 1000)
    assert splitter.take(100, 10_000).rows == 100
    assert splitter.take(5000, 60).data == b"12345\n" * 10
    assert splitter.take(5000, 10_000) is None
    assert splitter.take(5000, 10_000, flush=True).rows == 890
    assert splitter.take(5000, 10_000, flush=True) is None


def test_only_a_single_record_is_larger_than_a_chunk_may_be():
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    splitter.feed(b"a\n1\n" + b"x" * 50 + b"\n2\n3\n")
    chunks = [splitter.take(10, 20, flush=True) for _ in range(4)]
    assert [chunk and chunk.data for chunk in chunks] == [b"1\n", b"x" * 50 + b"\n", b"2\n3\n", None]


def test_record_larger_than_a_chunk_leaves_no_room_for_the_next():
    splitter = CsvSplitter(",", LIMIT, COLUMNS)
    splitter.feed(b"a\n" + b"x" * 25 + b"\n")
    splitter.feed(b"2\n" * 40)
    assert splitter.take(10, 20).data == b"x" * 25 + b"\n"


def test_large_record_that_has_just_been_completed_can_be_flushed():
    splitter = CsvSplitter(",", 1 << 20, COLUMNS)
    splitter.feed(b'a\n"' + b"line\n" * 20_000)
    assert splitter.take(10, 20, flush=True) is None
    splitter.feed(b'"\n')
    assert splitter.take(10, 20, flush=True).rows == 1


json_lines = st.sampled_from(
    ['{"a":1}', "[1,2]", '{"a":"é\\n日"}', "", "  ", "[]", "{}", '{"a": "' + "x" * 40 + '"}', "7", "{", '{"a":1,"a":2}']
)
json_bodies = st.builds(
    lambda mark, lines, line_end, last: (mark + line_end.join(lines) + last).encode(),
    st.sampled_from(["", "\ufeff"]),
    st.lists(json_lines, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\r\n"]),
)


def json_outcome(body, sizes, limit):
    splitter = NdjsonSplitter(limit)
    try:
        chunks = chunks_of(splitter, body, sizes, (2, 40))
    except SplitError as error:
        return error.code, error.line
    assert all(len(split_lines(chunk.data)) == chunk.rows for chunk in chunks)
    return b"".join(chunk.data for chunk in chunks), splitter.first


def json_reference(body, limit):
    records = []
    lines = body.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, start=1):
        content = line.removesuffix(b"\r") if number < len(lines) else line
        if len(content) > limit:
            return "record_too_large", number
        if content.strip(b" \r"):
            if content in (b"7", b"{", b'{"a":1,"a":2}'):
                return "invalid_json", number
            records.append(line + b"\n" * (number < len(lines)))
    return records if records else ("no_rows" if lines != [b""] else "empty_body", None)


@settings(max_examples=200, deadline=None)
@given(json_bodies, divisions, st.sampled_from([20, LIMIT]))
def test_json_lines_come_out_as_they_went_in_or_are_refused(body, sizes, limit):
    expected = json_reference(body, limit)
    found = json_outcome(body, sizes, limit)
    assert found == expected if isinstance(expected, tuple) else found[0] == b"".join(expected)


def test_first_json_line_is_known_as_soon_as_it_is_there():
    splitter = NdjsonSplitter(LIMIT)
    splitter.feed(b'\n{"a": 1.50}\n[')
    assert splitter.first == {"a": "1.50"}


@pytest.mark.parametrize("sizes", [[1], [100]])
def test_line_end_of_a_json_line_is_not_part_of_its_size(sizes):
    line = b'{"a":"' + b"x" * 32 + b'"}'
    assert json_outcome(line + b"\r\n" + line + b"\n" + line, sizes, 40)[0] == line + b"\r\n" + line + b"\n" + line
    assert json_outcome(line + b"\r", sizes, 40) == ("record_too_large", 1)
    assert json_outcome(line + b" \n", sizes, 40) == ("record_too_large", 1)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (b'{"a":1}\n\n7\n', "invalid_json", 3),
        (b'{"a":1}\nnull\n', "invalid_json", 2),
        (b'{"a":1}\n"x"', "invalid_json", 2),
        (b'{"a":NaN}\n', "invalid_json", 1),
        (b'{"a":1} {"a":2}\n', "invalid_json", 1),
        (b'{"a":1}\n{"a":"\0"}\n', "nul_byte", 2),
        (b'{"a":1}\n{"a":"\xff"}\n', "encoding", 2),
        (b'7\n{"a":"\xff"}\n', "invalid_json", 1),
    ],
)
def test_json_line_is_refused_with_code_and_line(body, code, line):
    assert json_outcome(body, [1000], LIMIT) == (code, line)
    assert json_outcome(body, [1], LIMIT) == (code, line)
