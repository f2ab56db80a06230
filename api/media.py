"""The three forms of results, and which of them a request asks for."""

from dataclasses import dataclass

from werkzeug.datastructures import MIMEAccept


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write results."""

    name: str
    media_type: str
    content_type: str


CSV = Form("csv", "text/csv", "text/csv; charset=utf-8")
NDJSON = Form("ndjson", "application/x-ndjson", "application/x-ndjson")
JSON = Form("json", "application/json", "application/json")
FORMS = {form.name: form for form in (CSV, NDJSON, JSON)}


class NoSuchForm(Exception):
    """Raised when a request accepts none of the forms that there are."""


def chosen(accept: MIMEAccept, sent: str) -> Form:
    """The form that an `Accept` header likes best; where it likes several alike, the one the job was `sent` in.

    Raises NoSuchForm.
    """
    if not accept.provided or not accept:
        return FORMS[sent]
    # Parameters such as a charset do not matter here, but werkzeug would find that they do not match.
    plain = MIMEAccept([(value.partition(";")[0].strip(), quality) for value, quality in accept])
    # Quality by the most specific range that matches: `text/csv;q=0, */*` refuses CSV (RFC 9110, section 12.5.1).
    best = max(FORMS.values(), key=lambda form: (plain.quality(form.media_type), form.name == sent))
    if plain.quality(best.media_type) <= 0:
        raise NoSuchForm
    return best
