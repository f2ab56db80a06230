"""Which form of results an Accept header gets."""

import pytest
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from api.media import NoSuchForm, chosen


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "ndjson"),
        ("", "ndjson"),
        ("*/*", "ndjson"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "ndjson"),
        ("text/csv", "csv"),
        ("TEXT/CSV; charset=utf-8", "csv"),
        ("text/*", "csv"),
        ("application/json", "json"),
        ("application/*", "ndjson"),
        ("application/json;q=0.5, text/csv;q=0.4", "json"),
        ("application/x-ndjson;q=0, */*;q=0.1, text/csv;q=0.2", "csv"),
        ("application/x-ndjson;q=0, application/json;q=0, */*", "csv"),
        ("text/csv;q=0.5, */*", "ndjson"),
    ],
)
def test_form_of_a_job_sent_as_ndjson(accept, expected):
    parsed = parse_accept_header(accept, MIMEAccept)
    assert chosen(parsed, "ndjson").name == expected


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/csv;q=0", "*/*;q=0", "nonsense"])
def test_a_form_that_there_is_not_is_refused(accept):
    with pytest.raises(NoSuchForm):
        chosen(parse_accept_header(accept, MIMEAccept), "csv")
