"""Which requests are plain enough for the fast lane: what is not exactly understood goes the ordinary way."""

import pytest
from gunicorn.config import Config

from api.lane import Plain
from api.plain import MOST_HEAD_BYTES, Incomplete, PlainRequests, Unusual

BODY = b'{"input":[1]}'
HEADERS = {"Host": "here:8000", "Content-Type": "application/json", "Content-Length": str(len(BODY))}
MOST_BODY_BYTES = 100


def request(line="POST /predict HTTP/1.1", body=BODY, **changes):
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
def plain():
    return PlainRequests(Config(), MOST_BODY_BYTES)


@pytest.mark.parametrize(
    ("received", "model", "sent_id"),
    [
        (request(), "", ""),
        (request("POST /predict?model=housing@1.2 HTTP/1.1"), "housing@1.2", ""),
        (request(X_Request_Id="abc"), "", "abc"),
        (request(Content_Type="application/json; charset=UTF-8"), "", ""),
        (request(Connection="Keep-Alive", User_Agent="curl/8", Accept="*/*", X_Forwarded_For="10.0.0.1"), "", ""),
        (request(Host="[::1]:80"), "", ""),
    ],
)
def test_plain_request_is_read(plain, received, model, sent_id):
    for _ in range(2):  # a head that is known already says the same
        assert plain.read(received) == Plain(BODY, model, sent_id)


@pytest.mark.parametrize(
    "received",
    [
        request("GET /predict HTTP/1.1"),
        request("PUT /predict HTTP/1.1"),
        request("POST /jobs HTTP/1.1"),
        request("POST /predict/ HTTP/1.1"),
        request("POST /predictions HTTP/1.1"),
        request("POST //predict HTTP/1.1"),
        request("POST http://here/predict HTTP/1.1"),
        request("POST /predict HTTP/1.0"),
        request("POST  /predict HTTP/1.1"),
        request("POST /predict? HTTP/1.1")[:13] + b"\n\r\n\r\n",
        request("POST /predict?wait=1 HTTP/1.1"),
        request("POST /predict?model=a&wait=1 HTTP/1.1"),
        request("POST /predict?model=a%20b HTTP/1.1"),
        request("POST /predict?probabilities=true HTTP/1.1"),
        request(Host=None),
        request(Host="a/b"),
        request(Content_Type=None),
        request(Content_Type="text/csv"),
        request(Content_Type="application/json; charset=latin-1"),
        request(Content_Length=None),
        request(Content_Length="-1"),
        request(Content_Length="+13"),
        request(Content_Length="13, 13"),
        request(Content_Length=None, Transfer_Encoding="chunked"),
        request(Transfer_Encoding="chunked"),
        request(Content_Encoding="gzip"),
        request(Prefer="wait=1"),
        request(Idempotency_Key="abc"),
        request(Authorization="Bearer abc"),
        request(Expect="100-continue"),
        request(Connection="close"),
        request(Upgrade="h2c"),
        request(X_Unknown="1"),
        request().replace(b"Content-Type: a", b"Content-Type: application/json\r\nContent-Type: a"),
        request().replace(b"Host:", b"Host: other\r\nHost:"),
        request().replace(b"Host:", b"Host :"),
        request().replace(b"Host: here", b"Host: here\r\n folded"),
        request().replace(b"Host: here", b"Host: he\0re"),
        request(body=b"x" * (MOST_BODY_BYTES + 1), Content_Length=str(MOST_BODY_BYTES + 1)),
        request() + b"POST /predict HTTP/1.1\r\n",
        request(User_Agent="x" * MOST_HEAD_BYTES),
        b"\r\n" + request(),
        b"\x16\x03\x01",
    ],
)
def test_everything_else_is_for_the_app(plain, received):
    for _ in range(2):
        with pytest.raises(Unusual):
            plain.read(received)


def test_request_that_has_not_come_to_its_end_is_waited_for(plain):
    whole = request(X_Request_Id="abc")
    for length in range(len(whole)):
        with pytest.raises(Incomplete):
            plain.read(whole[:length])
    assert plain.read(whole).sent_id == "abc"


def test_line_that_is_none_is_seen_before_its_end(plain):
    with pytest.raises(Unusual):
        plain.read(b"POST /j")
    with pytest.raises(Unusual):
        plain.read(b"GET")
    with pytest.raises(Unusual):
        plain.read(request()[:20] + b"x" * MOST_HEAD_BYTES)
