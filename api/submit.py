"""`POST /jobs`: a single prediction or a batch, by what the body is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flask import Blueprint, Response, request

from api.answers import accepted
from api.body import current_body
from api.content import Pieces, content, uncoded
from api.context import current
from api.decoding import as_utf8, codec_name
from api.form import Form, read_form
from api.idempotency import current_key, once
from api.input_lines import InputLines
from api.problems import Problem
from api.single import LARGER, accept_single, default_hint, find_model, read_document, version_of
from api.upload import Uploader, accept_small
from jobs.codec.cells import is_record, split_cells, unquote
from jobs.codec.layout import Layout, LayoutError, plan
from jobs.record import Job
from jobs.splitter import CsvSplitter, NdjsonSplitter, SplitError
from models.catalog import Manifest

blueprint = Blueprint("submit", __name__)

SMALLER = "Send several smaller batches."
MOST_LOOKED_AT_BYTES = 1024 * 1024  # of a file that is refused already
NO_LINE_END = ". There is no line end in the body: curl -d takes them out, --data-binary sends a file as it is."
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
Keep = Literal["all", "none"] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a batch asks for beside its rows."""

    manifest: Manifest
    keep: Keep
    delimiter: str
    hint: str = ""  # for a client whose columns do not fit

    def plan_csv(self, splitter: CsvSplitter) -> Layout | None:
        """The layout, once the header is there. Raises LayoutError."""
        header = splitter.header
        if header is None:
            return None
        try:
            return plan(
                format="csv",
                delimiter=self.delimiter,
                line_end=header.line_end,
                header=header.cells,
                names=header.names,
                features=self.manifest.feature_names,
                classes=self.manifest.classes,
                has_probabilities=self.manifest.has_probabilities,
                keep=self.keep,
            )
        except LayoutError as error:
            if self.hint and error.code == "missing_columns" and error.likely_delimiter is None:
                error.detail += f".{self.hint}"
            raise

    def plan_json(self, first: object) -> Layout:
        """The layout of inputs of which this is the first: its keys that are no features are extra columns."""
        names = list(self.manifest.feature_names)
        if isinstance(first, Mapping):
            names += [name for name in first if name not in names]
        return plan(
            format="json",
            names=names,
            features=self.manifest.feature_names,
            classes=self.manifest.classes,
            has_probabilities=self.manifest.has_probabilities,
            keep=self.keep,
        )


@blueprint.post("/jobs")
def submit() -> Response:
    """Accepts what was sent, once all of it has arrived."""
    accept = _ACCEPT.get(request.mimetype)
    if accept is None:
        taken = ", ".join(_ACCEPT)
        detail = f"This Content-Type is not taken here. Send one of: {taken}."
        raise Problem(415, "unsupported_media_type", detail, headers={"Accept-Post": taken})
    found = once(accept, _read_again)
    response = accepted(found.job)
    response.headers.update(found.headers)
    return response


def _accept_csv() -> Job:
    return _send_csv(content(current().settings.max_body_bytes, SMALLER), _asked({}))


def _accept_form() -> Job:
    form = _read_form()
    try:
        return _send_csv(as_utf8(form.file, form.charset), _asked(form.fields))
    except LayoutError:
        # A model or delimiter that comes after the file is the likelier reason why the columns do not fit.
        form.look_further(MOST_LOOKED_AT_BYTES)
        raise


def _read_form() -> Form:
    form = read_form(uncoded(current().settings.max_body_bytes, SMALLER), request.mimetype_params.get("boundary"))
    key = current_key()
    key.add_fields(form.fields, codec_name(form.charset))
    return replace(form, file=key.seen(form.file))


def _read_again() -> None:
    """Reads a body whose job is there already: for its fingerprint alone."""
    if request.mimetype == "multipart/form-data":
        pieces = _read_form().file
    else:
        pieces = current_key().seen(uncoded(current().settings.max_body_bytes, SMALLER))
    for _ in pieces:
        pass


def _accept_ndjson() -> Job:
    asked, settings = _asked({}), current().settings
    splitter = NdjsonSplitter(settings.max_record_bytes)

    def find_layout() -> Layout | None:
        return None if splitter.first is None else asked.plan_json(splitter.first)

    model = version_of(asked.manifest)
    uploader = Uploader(current(), "ndjson", model, splitter, find_layout, body_bytes=_plain_length())
    return _send(content(settings.max_body_bytes, SMALLER), splitter, uploader)


def _accept_json() -> Job:
    document = read_document({"input", "inputs", "model"})
    manifest = find_model(document)
    if ("input" in document) == ("inputs" in document):
        detail = 'Send one of both: {"input": …} for one prediction or {"inputs": […]} for a batch.'
        raise Problem(422, "input_or_inputs", detail)
    if "inputs" in document:
        return _send_inputs(document["inputs"], Asked(manifest, _keep(_option("keep", {})), ","))
    if _option("keep", {}) is not None:
        raise Problem(422, "keep_not_for_single", "A single prediction keeps all of its input. Leave keep out.")
    return accept_single(document)


_ACCEPT = {
    "text/csv": _accept_csv,
    "multipart/form-data": _accept_form,
    "application/x-ndjson": _accept_ndjson,
    "application/json": _accept_json,
}


def _send_csv(pieces: Iterator[bytes], asked: Asked) -> Job:
    settings = current().settings
    splitter = CsvSplitter(asked.delimiter, settings.max_record_bytes, settings.max_columns)
    model = version_of(asked.manifest)
    uploader = Uploader(current(), "csv", model, splitter, lambda: asked.plan_csv(splitter), body_bytes=_plain_length())
    watched = Pieces(pieces)
    try:
        return _send(watched, splitter, uploader)
    except (SplitError, LayoutError) as error:
        if watched.has_one_line:
            error.detail = error.detail.rstrip(".") + NO_LINE_END
        raise


def _send(pieces: Iterable[bytes], splitter: CsvSplitter | NdjsonSplitter, uploader: Uploader) -> Job:
    """Sends the rows while they arrive; accepts the batch when they all have."""
    current_body().while_waiting(uploader.keep_up)
    with uploader:
        try:
            for piece in pieces:
                splitter.feed(piece)
                uploader.send()
                uploader.keep_up()
            splitter.finish()
        except SplitError:
            # A header that does not fit is said first, however far the body had come in when the fault was found.
            uploader.check_layout()
            raise
        return uploader.close()


def _send_inputs(inputs: object, asked: Asked) -> Job:
    if not isinstance(inputs, list):
        raise Problem(422, "inputs_no_list", "The field inputs is no list. Send a list of inputs.")
    most = current().settings.max_inputs
    if len(inputs) > most:
        raise Problem(413, "too_many_rows", f"The field inputs takes up to {most} inputs. {LARGER}")
    if not inputs:
        raise Problem(400, "no_rows", "The field inputs is empty. Send at least one input.")
    layout = asked.plan_json(inputs[0])
    model, lines = version_of(asked.manifest), InputLines(inputs)
    chunk = lines.whole(current().settings.chunk_bytes)
    if chunk and chunk.rows <= min(current().settings.chunk_rows, current().settings.max_rows):
        job = accept_small(current(), model, layout, chunk)
        if job:
            return job
    with Uploader(current(), "json", model, lines, lambda: layout) as uploader:
        return uploader.close()


def _plain_length() -> int | None:
    """The length of the body if it was announced and nothing has to be unpacked; a form's is only a little longer."""
    return None if request.headers.get("Content-Encoding") else request.content_length


def _asked(fields: Mapping[str, str]) -> Asked:
    """What the query asks for, else the form's fields, else what holds without."""
    delimiter = _option("delimiter", fields) or "comma"
    delimiter = DELIMITERS.get(delimiter, delimiter)
    if delimiter not in DELIMITERS.values():
        raise Problem(400, "unknown_delimiter", f"The delimiter is not known. Send one of: {', '.join(DELIMITERS)}.")
    manifest = current().catalog.find(_option("model", fields))
    return Asked(manifest, _keep(_option("keep", fields)), delimiter, default_hint(fields))


def _option(name: str, fields: Mapping[str, str]) -> str | None:
    return request.args.get(name) or fields.get(name) or None


def _keep(text: str | None) -> Keep:
    """`all`, `none`, or column names as a CSV record has them: a name with a comma is quoted."""
    if text is None or text == "all":
        return "all"
    if text == "none":
        return "none"
    if not is_record(names := text.encode(), b","):
        detail = "keep is not a list of column names: write it as a CSV record; a name with a comma, a quote or a line "
        detail += "end stands in quotes, and quotes inside it are doubled."
        raise Problem(422, "unknown_column", detail)
    return [unquote(cell) for cell in split_cells(names, b",")]
