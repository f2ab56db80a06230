"""The atomic scripts: loaded from jobs/lua, called by name, their failures turned into our errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from time import monotonic
from typing import Any

import redis
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from jobs.connection import patience
from jobs.errors import StoreAway, StoreFull
from jobs.status import as_lua

LUA = Path(__file__).parent / "lua"
# Each uses what stands in earlier ones.
SHARED = ("keys", "idempotency", "records", "refusals", "slots", "room", "leases", "singles", "chunks")
TICKETS_KEY = "rq:queue:queuecast"  # the list in which RQ keeps the ids of our tickets
LIFE_SECONDS = 7 * 24 * 3600  # how long keys of an unended job live after the last touch

# A store that is busy with a script, cannot write its file, or waits for its replicas. The library has no classes for
# these errors, and tells first of which command of a pipeline it speaks.
_FOR_NOW = re.compile(r"(^|caused error: )(BUSY|MISCONF|NOREPLICAS) ")

Argument = str | int | float | bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """The times and counts that the scripts go by."""

    upload_deadline_seconds: float
    lease_seconds: float
    results_ttl_seconds: int
    single_ttl_seconds: int
    tombstone_ttl_seconds: int
    job_max_age_seconds: int
    version_wait_seconds: float
    store_budget_bytes: int  # 0: four fifths of the store's own limit, no limit when it has none

    @classmethod
    def of(cls, settings: object) -> "Limits":
        """Those of the settings that have the same names."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def as_lua(self) -> str:
        """TICKETS and the table LIMITS, all in seconds but the bytes, for scripts that use them."""
        return (
            f"local TICKETS = '{TICKETS_KEY}'\n"
            f"local LIMITS = {{ upload_deadline = {self.upload_deadline_seconds}, life = {LIFE_SECONDS},"
            f" results_ttl = {self.results_ttl_seconds}, single_ttl = {self.single_ttl_seconds},"
            f" tombstone_ttl = {self.tombstone_ttl_seconds}, job_max_age = {self.job_max_age_seconds},"
            f" version_wait = {self.version_wait_seconds}, store_budget = {self.store_budget_bytes} }}\n"
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the client library raises into StoreAway and StoreFull; a defect of ours stays what it is.

    StoreAway at once when the patience of a request is over.
    """
    if patience.is_over:
        raise StoreAway("the store has been too slow for this request")
    began, answered = monotonic(), True
    try:
        yield
    except OutOfMemoryError as error:
        raise StoreFull from error
    except (ConnectionError, TimeoutError) as error:
        answered = False
        raise StoreAway("the store does not answer") from error
    except (ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError) as error:
        raise StoreAway("the store is changing its leader") from error
    except ResponseError as error:
        if _FOR_NOW.search(str(error)):
            raise StoreAway("the store cannot answer yet") from error
        raise
    finally:
        patience.note(monotonic() - began, answered)


class Scripts:
    """Every script of jobs/lua, by its file's name."""

    def __init__(self, client: redis.Redis, limits: Limits) -> None:
        self._client = client
        self._scripts = {
            path.stem: client.register_script(assemble(path.read_text(encoding="utf-8"), limits))
            for path in LUA.glob("*.lua")
        }

    def call(self, name: str, *arguments: Argument) -> Any:  # noqa: ANN401 - what a script returns is its own affair
        """Runs one script; raises StoreAway or StoreFull."""
        with translated():
            return self._scripts[name](keys=[], args=list(arguments))

    def call_all(self, name: str, argument_lists: Sequence[Sequence[Argument]]) -> list[Any]:
        """Runs one script several times in one round trip, not as one transaction; raises StoreAway or StoreFull."""
        script = self._scripts[name]
        with translated():
            answers = self._call_all(script.sha, argument_lists)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                self._client.script_load(script.script)
                answers = self._call_all(script.sha, argument_lists)  # none has run: the store knew none of them
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    def _call_all(self, sha: str, argument_lists: Sequence[Sequence[Argument]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for arguments in argument_lists:
            pipeline.evalsha(sha, 0, *arguments)
        return pipeline.execute(raise_on_error=False)


def assemble(script: str, limits: Limits) -> str:
    """The script with what it uses of jobs/lua/shared behind its first line, which has to stay the first (`#!lua …`).

    What it changed is published after it, in one message. A script is run from its first line at every call, so what
    it does not use would only cost time: a single prediction takes three of them.
    """
    first, _, rest = script.partition("\n")
    definitions = _definitions(limits)
    body = f"local function run()\n{rest}\nend\nlocal answer = run()\n"
    used = _used(body, definitions)
    if "tell" in used:
        body += "publish()\n"
        used = _used(body, definitions)
    kept = [text for name, text in definitions.items() if name in used]
    return "\n".join([first, *kept, body + "return answer"])


def _definitions(limits: Limits) -> dict[str, str]:
    """What scripts share, by name: each `local` at the beginning of a line, up to the next one."""
    shared = [(LUA / "shared" / f"{name}.lua").read_text(encoding="utf-8") for name in SHARED]
    text = re.sub(r"^--.*\n", "", "\n".join([as_lua(), limits.as_lua(), *shared]), flags=re.MULTILINE)
    found = re.split(r"^(?=local )", text, flags=re.MULTILINE)[1:]
    return {re.match(r"local (?:function )?(\w+)", each)[1]: each.rstrip() for each in found}  # type: ignore[index]


def _used(body: str, definitions: Mapping[str, str]) -> set[str]:
    """The names of those that the body uses, and of those that they use in turn."""
    used: set[str] = set()
    unread = [body]
    while unread:
        for name in set(re.findall(r"\w+", unread.pop())) & definitions.keys() - used:
            used.add(name)
            unread.append(definitions[name])
    return used
