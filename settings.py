"""Every setting of Queuecast, read once from the environment; nothing else in the project reads it."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_MODEL_REFERENCE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}(@[a-z0-9][a-z0-9_.-]{0,63})?")
# What may be repeated of a store's URL: anything else in it could be part of a password.
_PLAIN_STORE = re.compile(
    r"([a-z]+://)?(\*\*\*@)?([\w.-]+|\[[0-9a-fA-F:]+\]):\d+(/\d*)?|[a-z]+://(\*\*\*@)?[\w.-]+(/\d*)?"
)
_HOME = Path(__file__).resolve().parent
_HOUR = 3600
_DAY = 24 * _HOUR
_MIB = 1024 * 1024
_ARTIFACTS = _HOME / "models" / "artifacts"
T = TypeVar("T")


class BadSetting(Exception):
    """Raised when a variable is missing or its value cannot be used; says which, what it was and what to do."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable} {problem}")
        self.variable = variable


@dataclass(frozen=True)
class _About:
    """What the table says of a setting, and what its value must keep to."""

    says: str
    unit: str = ""
    minimum: float = 0
    maximum: float = math.inf


def _setting(default: T, says: str, unit: str = "", minimum: float = 0, maximum: float = math.inf) -> T:
    return field(default=default, metadata={"about": _About(says, unit, minimum, maximum)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process; a field's variable is its name in capitals."""

    redis_url: str = field(  # kept out of repr(): it may hold a password
        repr=False,
        metadata={"about": _About("where Redis (7 or later) or Valkey is: `redis://`, `rediss://` or `unix://`")},
    )
    redis_tls_verify: bool = _setting(
        True, "with `rediss://`: check the server's certificate; Heroku's is self-signed and needs `false`"
    )
    models_path: Path = _setting(_ARTIFACTS, "the folder that holds the models")  # noqa: RUF009 (a field, not a call)
    default_model: str = _setting("housing", "the model of a request that names none")

    max_body_bytes: int = _setting(2048 * _MIB, "largest body of a request, decompressed", "bytes", minimum=1)
    max_rows: int = _setting(50_000_000, "most rows in one batch", "rows", minimum=1)
    max_json_body_bytes: int = _setting(_MIB, "largest `application/json` body", "bytes", minimum=1)
    max_inputs: int = _setting(10_000, 'most rows in one `{"inputs": […]}`', "rows", minimum=1)
    max_record_bytes: int = _setting(
        _MIB, "largest single record of a CSV or NDJSON body", "bytes", minimum=16, maximum=64 * _MIB
    )
    max_columns: int = _setting(10_000, "most columns of a CSV body", "columns", minimum=1)

    # The upper limit keeps what a worker holds in memory far below the 512 MB of a small host.
    chunk_bytes: int = _setting(
        _MIB, "where a batch is cut: largest chunk (a larger record travels alone)", "bytes", 1024, 16 * _MIB
    )
    chunk_rows: int = _setting(65_536, "where a batch is cut: most rows in a chunk", "rows", minimum=1)
    first_chunk_rows: int = _setting(
        128, "most rows in a batch's first chunk, small so that its first results come soon", "rows", minimum=1
    )

    predict_wait_seconds: float = _setting(
        10.0, "how long `/predict` waits for its prediction when the request does not say", "seconds"
    )
    # 25: hosts with a router want the first byte of an answer within 30 s.
    max_wait_seconds: float = _setting(25.0, "longest wait that a request may ask for", "seconds", maximum=25)
    body_idle_seconds: float = _setting(
        20.0,
        "longest silence of a client that sends a body, and how long it may take to send a request's head",
        "seconds",
        minimum=0.1,
        maximum=600,
    )
    min_body_bytes_per_second: int = _setting(
        256, "slowest body that is accepted, on average from the 20th second on", "bytes/second"
    )
    upload_deadline_seconds: float = _setting(
        60.0, "an upload that brought nothing for so long is taken back", "seconds", minimum=0.5, maximum=3600
    )

    # With a sweep every two seconds, the work of a worker that died runs elsewhere within ten.
    lease_seconds: float = _setting(
        7.0, "how long a worker holds a chunk without a sign of life", "seconds", minimum=0.5, maximum=600
    )
    slice_seconds: float = _setting(
        1.0, "how long a worker stays with one job before it takes its turn again", "seconds", minimum=0.01, maximum=60
    )
    sweep_seconds: float = _setting(
        2.0, "how often each worker looks for work that was dropped", "seconds", minimum=0.05, maximum=60
    )
    max_load_attempts: int = _setting(
        3, "how often loading a model may kill the predictor before its jobs fail", "attempts", 1, 100
    )
    predictor_memory_bytes: int = _setting(
        0,
        "most memory of a predictor, at least 256 MiB; 0 is three quarters of the container's or the machine's",
        "bytes",
    )
    version_wait_seconds: float = _setting(
        60.0, "how long a job waits for a worker that has its model's version", "seconds", maximum=_DAY
    )

    store_budget_bytes: int = _setting(
        0, "what jobs may take of the store's memory; 0 is four fifths of its `maxmemory`, or no limit", "bytes"
    )
    results_ttl_seconds: int = _setting(_DAY, "how long a batch is kept after its end", "seconds", minimum=1)
    single_ttl_seconds: int = _setting(_HOUR, "how long a single prediction is kept after its end", "seconds", 1)
    tombstone_ttl_seconds: int = _setting(
        7 * _DAY,
        "how long it stays known that a job was there, from its acceptance and again from its end",
        "seconds",
        minimum=1,
    )
    # At most 6 days: the keys of an unended job are renewed for 7.
    job_max_age_seconds: int = _setting(
        _DAY, "an older job that has not ended fails with `deadline_exceeded`", "seconds", 1, 6 * _DAY
    )

    # 2 on the 512 MB of a small host: each process takes 40 MB, and Heroku sets the same.
    web_concurrency: int = _setting(2, "web processes", "processes", 1, 64)
    # A request that waits holds a thread and little else (docs/web-server.md); a hundred stay free for all others.
    web_threads: int = _setting(600, "threads of a web process: requests that it answers at once", "threads", 2, 5000)
    max_waiting: int = _setting(
        500,
        "requests of a web process that may wait for results at once; more are answered without waiting",
        "requests",
    )
    log_level: str = _setting("INFO", f"least important messages that are logged: {', '.join(_LOG_LEVELS)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings that `environ` asks for; raises BadSetting at the first one that cannot be used."""
        given: dict[str, Any] = {
            name: _parse(name, environ[name.upper()]) for name in _names() if name.upper() in environ
        }
        if "redis_url" not in given:
            raise BadSetting("REDIS_URL", "is not set: say where Redis or Valkey is, like redis://localhost:6379/0")
        settings = cls(**given)
        _check_relations(settings)
        return settings


def load() -> Settings:
    """The settings of this process; raises BadSetting."""
    return Settings.from_environment(os.environ)


def inherited(**changes: str) -> dict[str, str]:
    """This process's environment with `changes`, for a process that it starts."""
    return {**os.environ, **changes}


def table() -> str:
    """The settings as the README's Markdown table."""
    rows = ["| variable | default | unit | meaning |", "| --- | --- | --- | --- |"]
    for name in _names():
        about = _about(name)
        rows.append(f"| `{name.upper()}` | {_shown_default(name)} | {about.unit} | {about.says} |")
    return "\n".join(rows) + "\n"


def _names() -> tuple[str, ...]:
    return tuple(each.name for each in fields(Settings))


def _about(name: str) -> _About:
    about: _About = Settings.__dataclass_fields__[name].metadata["about"]
    return about


def _shown_default(name: str) -> str:
    if name == "redis_url":
        return "required"
    default = Settings.__dataclass_fields__[name].default
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, Path):
        return f"`{default.relative_to(_HOME).as_posix()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _parse(name: str, text: str) -> object:
    if name in _CHECKED_TEXT:
        return _CHECKED_TEXT[name](text)
    wanted = Settings.__dataclass_fields__[name].type
    if wanted is bool:
        return _parse_bool(name.upper(), text)
    if wanted is Path:
        return _parse_path(name.upper(), text)
    return _parse_number(name.upper(), text, _about(name), whole=wanted is int)


def _parse_number(variable: str, text: str, about: _About, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise BadSetting(variable, f"is {text!r}: write {kind}{_of_unit(about)}") from None
    if not math.isfinite(value) or not about.minimum <= value <= about.maximum:
        limits = f"at least {about.minimum:g}"
        if about.maximum < math.inf:
            limits = f"between {about.minimum:g} and {about.maximum:g}"
        raise BadSetting(variable, f"is {text!r}: it must be {limits}{_of_unit(about)}")
    return value


def _of_unit(about: _About) -> str:
    return f" ({about.unit})" if about.unit else ""


def _parse_bool(variable: str, text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise BadSetting(variable, f"is {text!r}: write true or false")
    return word in _TRUE


def _parse_path(variable: str, text: str) -> Path:
    if not text:
        raise BadSetting(variable, "is empty: name a folder, or unset it")
    return Path(text)


def _parse_log_level(text: str) -> str:
    if text.upper() not in _LOG_LEVELS:
        raise BadSetting("LOG_LEVEL", f"is {text!r}: write one of {', '.join(_LOG_LEVELS)}")
    return text.upper()


def _parse_default_model(text: str) -> str:
    if not _MODEL_REFERENCE.fullmatch(text):
        raise BadSetting("DEFAULT_MODEL", f"is {text!r}: write a model's name, or name@version")
    return text


def _parse_redis_url(text: str) -> str:
    if not _is_store_url(text):
        shown = _without_password(text)
        raise BadSetting("REDIS_URL", f"is {shown}: write a URL like redis://localhost:6379/0")
    return text


def _is_store_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for a port that is no port
    except ValueError:
        return False
    if parts.scheme == "unix":
        return bool(parts.path)
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname)


def _without_password(text: str) -> str:
    """The value of REDIS_URL as it may be shown; whatever could be a part of a password is left out."""
    before, at, after = text.rpartition("@")
    scheme, mark, _ = before.partition("://")
    shown = f"{scheme}{mark}***@{after}" if at else text
    return repr(shown) if _PLAIN_STORE.fullmatch(shown) else "of a form that is not shown, since it may hold a password"


_CHECKED_TEXT = {
    "redis_url": _parse_redis_url,
    "default_model": _parse_default_model,
    "log_level": _parse_log_level,
}


def _check_relations(settings: Settings) -> None:
    _check_predictor_memory(settings.predictor_memory_bytes)
    _at_most(settings, "predict_wait_seconds", "max_wait_seconds")
    # Or a client that is only slow would find its upload taken back before it is told.
    _at_most(settings, "body_idle_seconds", "upload_deadline_seconds")
    # A worker renews its lease between slices and repairs within a lease.
    _at_most(settings, "slice_seconds", "lease_seconds")
    _at_most(settings, "sweep_seconds", "lease_seconds")
    longest = settings.job_max_age_seconds + max(settings.results_ttl_seconds, settings.single_ttl_seconds)
    if settings.tombstone_ttl_seconds < longest:
        raise BadSetting(
            "TOMBSTONE_TTL_SECONDS",
            f"is {settings.tombstone_ttl_seconds}: it must be at least {longest}, a job's longest life "
            "(JOB_MAX_AGE_SECONDS and the longer of RESULTS_TTL_SECONDS and SINGLE_TTL_SECONDS)",
        )


def _check_predictor_memory(wanted: int) -> None:
    # What the libraries take alone, worker.memory has the same: with less, no row could be predicted.
    least = 256 * _MIB
    if 0 < wanted < least:
        raise BadSetting("PREDICTOR_MEMORY_BYTES", f"is {wanted}: it must be 0 or at least {least} (bytes)")


def _at_most(settings: Settings, smaller: str, larger: str) -> None:
    low, high = getattr(settings, smaller), getattr(settings, larger)
    if low > high:
        raise BadSetting(smaller.upper(), f"is {low:g}: it must be at most {larger.upper()}, which is {high:g}")
