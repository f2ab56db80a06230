"""Bodies over real sockets through a real gunicorn, and their codings without one."""

import codecs
import gzip
import hashlib
import http.client
import io
import itertools
import json
import resource
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import ExitStack
from pathlib import Path

import pytest
import zstandard
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from api import body as body_module
from api import problems
from api.answers import json_answer
from api.body import current_body
from api.closing import Closing
from api.content import content, uncoded
from api.decoding import CHARSETS, as_utf8, decompressed
from api.form import read_form
from api.problems import Problem
from settings import Settings

MIB = 1024 * 1024
MOST = 8 * MIB
# No deadline for one example: the machine may be busy with other things.
EXAMPLES = settings(max_examples=100, deadline=None)


def tiny_app():
    """What gunicorn serves here: the API's way of reading bodies, and nothing else."""
    body_module.GRACE_SECONDS = 2.0
    app = Flask("tiny", static_folder=None)
    problems.register(app)
    ticks = []

    @app.post("/read")
    def read():
        current_body().while_waiting(lambda: ticks.append(1))
        digest, count, largest = hashlib.sha256(), 0, 0
        for piece in content(MOST, "Send less."):
            digest.update(piece)
            count, largest = count + len(piece), max(largest, len(piece))
        return json_answer({"bytes": count, "sha256": digest.hexdigest(), "largest": largest, "ticks": len(ticks)})

    @app.post("/refuse")
    def refuse():
        next(content(1024 * MIB, "Send less."))
        raise Problem(400, "row_one", "Row one is wrong.")

    @app.get("/memory")
    def memory():
        return json_answer({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})

    app.wsgi_app = Closing(
        app.wsgi_app, Settings(redis_url="redis://127.0.0.1:1", body_idle_seconds=1.5, min_body_bytes_per_second=256)
    )
    return app


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    here = Path(__file__).resolve().parent
    config = tmp_path_factory.mktemp("server") / "gunicorn.conf.py"
    config.write_text(
        "from gunicorn.workers.gthread import ThreadWorker\n"
        "from api.server_errors import ProblemErrors\n"
        "worker_class = type('Worker', (ProblemErrors, ThreadWorker), {})\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--config", str(config), "--limit-request-field_size=1000"),
                *("--threads", "8", "--no-control-socket", "--log-level", "error", "--keep-alive", "30"),
                *("--pythonpath", f"{here.parents[1]},{here}", "--bind", f"fd://{listener.fileno()}"),
                "test_body:tiny_app()",
            ],
            cwd=here.parents[1],
            pass_fds=[listener.fileno()],
        )
        yield listener.getsockname()[1]
        server.terminate()
        assert server.wait(30) == 0


class Kept(io.BufferedReader):
    """What was received and not read yet, kept from one answer to the next."""

    def makefile(self, _mode):
        return self

    def close(self):
        pass


class Client:
    """A raw connection: what it sends is what the test says, also when that is not HTTP."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.received = Kept(socket.SocketIO(self.socket, "r"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, path, *headers, body=b""):
        head = "".join(f"{line}\r\n" for line in (f"POST {path} HTTP/1.1", "Host: test", *headers, ""))
        self.socket.sendall(head.encode() + body)

    def answer(self):
        response = http.client.HTTPResponse(self.received, method="POST")
        response.begin()
        return response.status, dict(response.headers), json.loads(response.read())


def post(port, path, body, *headers):
    with Client(port) as client:
        client.send(path, f"Content-Length: {len(body)}", *headers, body=body)
        return client.answer()


def in_chunks(body, size):
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def assert_read(answer, body):
    status, _, document = answer
    assert (status, document["bytes"], document["sha256"]) == (200, len(body), hashlib.sha256(body).hexdigest())


def assert_refused(answer, status, code):
    assert (answer[0], answer[2]["code"]) == (status, code)
    assert answer[1]["Content-Type"] == "application/problem+json"


# Framing


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 70_000, 5 * MIB])
def test_a_body_with_a_length_is_read_whole(port, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert_read(post(port, "/read", body), body)


@pytest.mark.parametrize("size", [1, 100, 8190, 100_000])
def test_a_chunked_body_is_read_whole(port, size):
    body = b"abcdefghij" * (20 * size if size < 1000 else 100_000)
    with Client(port) as client:
        client.send("/read", "Transfer-Encoding: chunked", body=in_chunks(body, size) + b"0\r\n\r\n")
        assert_read(client.answer(), body)


def test_a_connection_goes_on_after_bodies_that_were_read(port):
    with Client(port) as client:
        for body in (b"one", b"two" * 1000):
            client.send("/read", f"Content-Length: {len(body)}", body=body)
            answer = client.answer()
            assert_read(answer, body)
            assert answer[1]["Connection"] == "keep-alive"
            client.send("/read", "Transfer-Encoding: chunked", body=in_chunks(body, 7) + b"0\r\n\r\n")
            assert_read(client.answer(), body)


def test_a_request_that_comes_with_the_body_of_the_one_before_is_answered_too(port):
    second = b"POST /read HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\ntwo"
    with Client(port) as client:
        client.send("/read", "Content-Length: 3", body=b"one" + second)
        assert_read(client.answer(), b"one")
        assert_read(client.answer(), b"two")


def test_a_body_that_ends_before_its_length_is_incomplete(port):
    with Client(port) as client:
        client.send("/read", "Content-Length: 100", body=b"a" * 99)
        client.socket.shutdown(socket.SHUT_WR)
        assert_refused(client.answer(), 400, "incomplete_body")


@pytest.mark.parametrize(
    "body", [b"", b"5\r\nab", b"5\r\nabcde", b"5\r\nabcde\r", b"5\r\nabcde\r\n", b"5\r\nabcde\r\n0\r\n", b"5"]
)
def test_a_chunked_body_without_its_end_is_incomplete(port, body):
    with Client(port) as client:
        client.send("/read", "Transfer-Encoding: chunked", body=body)
        client.socket.shutdown(socket.SHUT_WR)
        assert_refused(client.answer(), 400, "incomplete_body")


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n0\r\n\r\n", b"3\r\nabcdef\r\n0\r\n\r\n"])
def test_chunks_that_are_framed_wrongly_are_malformed(port, body):
    with Client(port) as client:
        client.send("/read", "Transfer-Encoding: chunked", body=body)
        assert_refused(client.answer(), 400, "malformed_body")


def test_a_post_without_a_body_is_asked_for_its_length(port):
    with Client(port) as client:
        client.send("/read")
        assert_refused(client.answer(), 411, "length_required")


# Size


def test_a_body_announced_too_large_is_refused_before_it_is_sent(port):
    with Client(port) as client:
        client.send("/read", f"Content-Length: {MOST + 1}")
        answer = client.answer()
        assert_refused(answer, 413, "body_too_large")
        assert answer[2]["detail"].endswith("Send less.")
        assert answer[1]["Connection"] == "close"


def test_a_chunked_body_that_grows_too_large_is_refused(port):
    body = in_chunks(b"a" * (MOST + 1), MIB) + b"0\r\n\r\n"
    with Client(port) as client:
        client.send("/read", "Transfer-Encoding: chunked", body=body)
        assert_refused(client.answer(), 413, "body_too_large")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_is_refused_at_the_cap_and_costs_no_memory(port, coding):
    zeros = b"\0" * (256 * MIB)
    bomb = gzip.compress(zeros, 6) if coding == "gzip" else zstandard.ZstdCompressor(level=3).compress(zeros)
    before = peak_kib(port)
    assert_refused(post(port, "/read", bomb, f"Content-Encoding: {coding}"), 413, "body_too_large")
    assert peak_kib(port) - before < 24 * 1024


def peak_kib(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/memory")
    peak = json.load(connection.getresponse())["peak"]
    connection.close()
    return peak


# Pace


def test_a_silent_client_is_answered_408(port):
    with Client(port) as client:
        began = time.monotonic()
        client.send("/read", "Content-Length: 100", body=b"abc")
        answer = client.answer()
        assert_refused(answer, 408, "body_too_slow")
        assert 1.4 < time.monotonic() - began < 4
        assert answer[1]["Connection"] == "close"


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_client_that_only_trickles_is_answered_408(port, framing):
    # Of the chunked body only the first chunk's size line ever comes, padded with an extension.
    endless = itertools.chain(b"5;x=", itertools.repeat(ord("y")))
    with Client(port) as client:
        client.send("/read", framing)
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.2):
                client.socket.send(bytes([next(endless)]))

        sender = threading.Thread(target=trickle)
        sender.start()
        began = time.monotonic()
        answer = client.answer()
        stop.set()
        sender.join()
        assert_refused(answer, 408, "body_too_slow")
        assert 1.9 < time.monotonic() - began < 6


def test_a_slow_body_is_read_as_it_comes_and_its_silence_is_used(port):
    with Client(port) as client:
        client.send("/read", "Content-Length: 2000", body=b"a" * 1000)
        time.sleep(1.2)
        client.socket.sendall(b"a" * 1000)
        status, _, document = client.answer()
        assert (status, document["bytes"]) == (200, 2000)
        assert document["ticks"] >= 1


def test_slow_clients_do_not_keep_others_waiting_for_long(port):
    with ExitStack() as stack:
        for _ in range(6):
            client = stack.enter_context(Client(port))
            client.send("/read", "Content-Length: 100", body=b"abc")
        began = time.monotonic()
        peak_kib(port)
        assert time.monotonic() - began < 1


# Early refusal


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_still_sends_a_large_body_can_read_why_it_is_refused(port, chunked):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    block, blocks = b"a" * MIB, 100
    headers = {} if chunked else {"Content-Length": str(blocks * MIB)}
    connection.request("POST", "/refuse", body=itertools.repeat(block, blocks), headers=headers, encode_chunked=chunked)
    response = connection.getresponse()
    assert response.status == 400
    assert response.getheader("Connection") == "close"
    assert json.load(response)["code"] == "row_one"
    connection.close()


def test_an_early_refusal_comes_at_once(port):
    with Client(port) as client:
        client.send("/refuse", "Content-Length: 1000000", body=b"a" * 1000)
        began = time.monotonic()
        assert_refused(client.answer(), 400, "row_one")
        assert time.monotonic() - began < 1


def test_a_client_that_stays_connected_after_a_refusal_keeps_nobody_waiting(port):
    with Client(port) as client:
        client.send("/nowhere", "Content-Length: 1000000", body=b"a")
        assert_refused(client.answer(), 404, "unknown_route")
        for _ in range(3):
            began = time.monotonic()
            peak_kib(port)
            assert time.monotonic() - began < 1
        client.socket.settimeout(10)
        assert client.socket.recv(1) == b""


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        ("GET /memory HTTP/1.1\r\nHost: x\r\nX: " + "y" * 2000 + "\r\n\r\n", 431, "headers_too_large"),
        ("GET /" + "y" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
        ("GET /memory HTTP/1.1\r\nHost: x\r\nsecret\x01: y\r\n\r\n", 400, "malformed_request"),
        ("nonsense\r\n\r\n", 400, "malformed_request"),
        ("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
        ("POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n", 400, "malformed_request"),
        ("POST /read HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", 417, "expectation_failed"),
    ],
)
def test_what_the_server_refuses_before_the_app_is_a_problem_document_too(port, head, status, code):
    with Client(port) as client:
        client.socket.sendall(head.encode())
        answer = client.answer()
        assert_refused(answer, status, code)
        assert "secret" not in answer[2]["detail"]
        assert answer[1]["X-Request-Id"]


# Compression


def split(data, sizes):
    pieces, rest = [], data
    for size in sizes:
        pieces, rest = [*pieces, rest[:size]], rest[size:]
    return [*pieces, rest]


def unwrapped(pieces, coding, most=MOST):
    return b"".join(decompressed(iter(pieces), coding, most, ""))


COMPRESS = {"gzip": gzip.compress, "zstd": lambda data: zstandard.ZstdCompressor().compress(data)}
CODINGS = pytest.mark.parametrize("coding", list(COMPRESS))


@CODINGS
@EXAMPLES
@given(members=st.lists(st.binary(max_size=300), max_size=4), sizes=st.lists(st.integers(0, 40), max_size=20))
def test_several_compressed_members_are_one_body(coding, members, sizes):
    data = b"".join(COMPRESS[coding](member) for member in members)
    assert unwrapped(split(data, sizes), coding) == b"".join(members)


@CODINGS
@EXAMPLES
@given(body=st.binary(min_size=1, max_size=300), cut=st.integers(1, 90), sizes=st.lists(st.integers(0, 40), max_size=9))
def test_compressed_bodies_that_are_cut_short_are_incomplete(coding, body, cut, sizes):
    data = COMPRESS[coding](body)
    cut = min(cut, len(data) - 1)
    with pytest.raises(Problem) as raised:
        unwrapped(split(data[:-cut], sizes), coding)
    assert raised.value.code == "incomplete_body"


@CODINGS
def test_a_second_member_that_is_cut_short_is_incomplete(coding):
    data = COMPRESS[coding](b"first" * 100) + COMPRESS[coding](b"second" * 100)[:-3]
    with pytest.raises(Problem) as raised:
        unwrapped([data], coding)
    assert raised.value.code == "incomplete_body"


@CODINGS
def test_a_large_compressed_body_comes_out_whole_in_small_pieces(coding):
    body = bytes(range(256)) * 40_000
    data = COMPRESS[coding](body)
    pieces = list(decompressed(iter(split(data, [1000] * 20)), coding, len(body), ""))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 128 * 1024


@CODINGS
@pytest.mark.parametrize("garbage", [b"hello, this is not compressed at all", b"\0" * 50])
def test_what_is_not_compressed_is_corrupt(coding, garbage):
    with pytest.raises(Problem) as raised:
        unwrapped([garbage], coding)
    assert raised.value.code == "corrupt_body"


@CODINGS
def test_garbage_behind_a_member_is_corrupt(coding):
    with pytest.raises(Problem) as raised:
        unwrapped([COMPRESS[coding](b"abc"), b"and then something else, long enough"], coding)
    assert raised.value.code == "corrupt_body"


def test_a_bit_flipped_in_gzip_is_corrupt():
    data = bytearray(gzip.compress(b"some text that is long enough" * 20))
    data[-6] ^= 1
    with pytest.raises(Problem) as raised:
        unwrapped([bytes(data)], "gzip")
    assert raised.value.code == "corrupt_body"


def test_zeros_behind_gzip_are_padding():
    assert unwrapped([gzip.compress(b"abc") + b"\0" * 512], "gzip") == b"abc"


def test_a_raw_zlib_stream_is_not_gzip():
    with pytest.raises(Problem, match="corrupt_body"):
        unwrapped([zlib.compress(b"abc")], "gzip")


def test_zstd_with_a_huge_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(b"abc" * 1000) + compressor.flush()
    with pytest.raises(Problem) as raised:
        unwrapped([data], "zstd")
    assert raised.value.code == "corrupt_body"


def test_an_unknown_coding_is_unsupported():
    with pytest.raises(Problem) as raised:
        unwrapped([b"abc"], "br")
    assert (raised.value.status, raised.value.code) == (415, "unsupported_encoding")


def test_a_coding_is_named_in_any_case_and_identity_is_none():
    assert unwrapped([gzip.compress(b"abc")], " GZip ") == b"abc"
    assert unwrapped([b"abc"], "identity") == b"abc"


# Charsets

TEXT = {
    "utf-16": "zahl;größe\n1;2,5\n",
    "utf-16-be": "zahl;größe\n",
    "utf-32-le": "zahl;größe\n",
    "iso-8859-1": "größe,é\n",
    "windows-1252": "größe,€\n",
    "iso-8859-15": "€\n",
    "shift_jis": "日本語,かな\n",
    "euc-jp": "日本語\n",
    "iso-2022-jp": "日本語\n",
    "gb18030": "中文,汉字\n",
    "gbk": "中文\n",
    "big5": "中文\n",
    "euc-kr": "한국어\n",
    "us-ascii": "a,b\n",
    "utf-8": "größe,日本\n",
}


@pytest.mark.parametrize("charset", list(TEXT))
def test_text_is_converted_to_utf_8_however_it_is_divided(charset):
    data = TEXT[charset].encode(charset)
    for size in range(1, 8):
        pieces = split(data, [size] * (len(data) // size))
        assert b"".join(as_utf8(iter(pieces), charset)).decode() == TEXT[charset]


@EXAMPLES
@given(text=st.text(), sizes=st.lists(st.integers(0, 5), max_size=20))
def test_any_text_survives_utf_16(text, sizes):
    data = text.encode("utf-16", "surrogatepass")
    try:
        expected = text.encode()
    except UnicodeEncodeError:
        return
    assert b"".join(as_utf8(iter(split(data, sizes)), "UTF-16")) == expected


@pytest.mark.parametrize(
    ("charset", "data", "offset"),
    [
        ("us-ascii", b"abc\xc3\xa9", 3),
        ("utf-16-le", "ab".encode("utf-16-le") + b"\x00\xdc" + b"a\0", 4),
        ("utf-16-le", b"a\0b", 2),
        ("shift_jis", b"abc\x81\xff", 3),
        ("windows-1252", b"ab\x81", 2),
        ("gb18030", b"abcd\xff", 4),
    ],
)
def test_text_that_is_not_in_its_charset_is_refused_with_the_offset(charset, data, offset):
    for size in range(1, len(data) + 1):
        with pytest.raises(Problem) as raised:
            list(as_utf8(iter(split(data, [size] * (len(data) // size))), charset))
        assert raised.value.code == "encoding"
        assert f"at byte {offset}." in raised.value.detail


@pytest.mark.parametrize("charset", ["zlib_codec", "rot13", "unicode_escape", "utf-7", "idna", "klingon", "../x", "é"])
def test_what_is_no_charset_is_unsupported(charset):
    with pytest.raises(Problem) as raised:
        as_utf8(iter([]), charset)
    assert (raised.value.status, raised.value.code) == (415, "unsupported_charset")


def test_every_charset_of_the_list_is_python_s_own_name():
    assert {codecs.lookup(name).name for name in CHARSETS} == CHARSETS


# Forms

BOUNDARY = "----bound"


def form(*parts, end=True):
    lines = []
    for disposition, value in parts:
        lines += [f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode(), value, b"\r\n"]
    return b"".join(lines) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def read_parts(data, sizes=()):
    read = read_form(iter(split(data, sizes)), BOUNDARY)
    return dict(read.fields), b"".join(read.file)


@EXAMPLES
@given(
    file=st.binary(max_size=200) | st.text("\r\n-bound", max_size=60).map(str.encode),
    sizes=st.lists(st.integers(0, 50), max_size=20),
)
def test_a_form_s_file_comes_out_byte_for_byte(file, sizes):
    if f"--{BOUNDARY}".encode() in file:
        return
    data = form(('name="model"', b"iris"), ('name="file"; filename="a.csv"', file))
    assert read_parts(data, sizes) == ({"model": "iris"}, file)


def test_a_file_part_may_have_no_file_name_and_a_charset():
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: text/csv; charset=latin1\r\n'
    read = read_form(iter([f"{head}\r\nabc\r\n--{BOUNDARY}--".encode()]), BOUNDARY)
    assert (read.charset, b"".join(read.file)) == ("latin1", b"abc")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (form(('name="file"; filename="a"', b"a"), ('name="model"', b"iris")), "field_after_file"),
        (form(('name="file"; filename="a"', b"a"), ('name="file"; filename="b"', b"b")), "field_after_file"),
        (form(('name="model"', b"iris")), "missing_file"),
        (form(('name="upload"; filename="a"', b"a")), "missing_file"),
        (form(), "missing_file"),
        (form(('name="file"; filename="a"', b"a"), end=False), "incomplete_body"),
        (form(('name="model"', b"a"), end=False), "incomplete_body"),
        (b"", "incomplete_body"),
        (form(('name="model"', b"a" * 70_000)), "malformed_form"),
        (form(('name="model"', b"\xff"), ('name="file"', b"a")), "malformed_form"),
        (form(*[('name="model"', b"a")] * 40), "malformed_form"),
        (f"--{BOUNDARY}\r\n".encode() + b"X: " + b"y" * 200_000, "malformed_form"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\nabc\r\n--{BOUNDARY}--".encode(), "malformed_form"),
        (form(('name="model"', b"a"), ("", b"b"), ('name="file"', b"a")), "malformed_form"),
        (f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--{BOUNDARY}--".encode(), "malformed_form"),
    ],
)
def test_a_form_that_is_not_as_asked_is_refused(data, code):
    with pytest.raises(Problem) as raised:
        read_parts(data)
    assert (raised.value.status, raised.value.code) == (400, code)


def test_a_field_behind_a_file_that_is_refused_already_is_found():
    data = form(('name="file"; filename="a"', b"a" * 200_000), ('name="model"', b"iris"))
    pieces = iter(split(data, [1000] * 150))
    read_form(pieces, BOUNDARY).look_further(10_000)
    assert next(pieces, None) is not None
    read = read_form(iter(split(data, [1000] * 150)), BOUNDARY)
    with pytest.raises(Problem, match="field_after_file"):
        read.look_further(1_000_000)


def test_a_form_without_a_boundary_is_refused():
    with pytest.raises(Problem, match="malformed_form"):
        read_form(iter([b""]), None)


def test_outside_gunicorn_the_length_is_respected_too():
    app = Flask("plain")
    problems.register(app)
    app.add_url_rule("/", view_func=lambda: json_answer(len(b"".join(uncoded(100, "")))), methods=["POST"])
    app.wsgi_app = Closing(app.wsgi_app, Settings(redis_url="redis://127.0.0.1:1"))
    client = app.test_client()
    assert client.post("/", data=b"abc").json == 3
    short = client.post("/", data=b"abc", environ_overrides={"CONTENT_LENGTH": "10"})
    assert short.json["code"] == "incomplete_body"


def test_what_nobody_foresaw_is_a_503_and_no_value_is_logged_or_answered(caplog):
    app = Flask("plain")
    problems.register(app)
    canary = "4711"

    @app.get("/")
    def fail():
        raise ValueError(canary)

    answer = app.test_client().get("/")
    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "internal_error", "2")
    assert "ValueError" in caplog.text
    assert "in fail" in caplog.text
    assert canary not in caplog.text + answer.text
