"""Starts a stack and shows what it says until Ctrl-C or SIGTERM; run by bin/serve."""

import argparse
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from local_store import Directory, StoreError, program_on_path
from redis.exceptions import RedisError
from stack import FOLDER, Interrupted, Stack, StackError, interrupted_by_signals

import settings
from jobs.connection import web_client
from jobs.errors import JobsError
from jobs.scripts import Limits
from jobs.store import Store
from models.catalog import Catalog, ModelsError
from settings import BadSetting, Settings

_PREFERRED_PORT = 8080
_HOW_TO_TRY = """
Queuecast is ready: {url}  (workers: {workers}, logs in {logs})
{notes}
  curl -X GET {url}/predict -H "Content-Type: application/json" -d '{{"input":"7"}}'
  curl {url}/models
  curl -F file=@your.csv '{url}/jobs?model=diabetes'
  curl '{url}/jobs/<id>?wait=10'
  curl -OJ {url}/jobs/<id>/results

Ctrl-C stops it.
"""


def main() -> int:
    interrupted = interrupted_by_signals()
    arguments = _arguments()
    directory = Directory(FOLDER, "stack")
    try:
        _serve(arguments, directory, interrupted)
    except Interrupted:
        pass
    except CannotStart as error:
        print(f"\nQueuecast could not start. {error}", file=sys.stderr)
        return 1
    except StackError as error:
        print(f"\nQueuecast could not go on. {error}", file=sys.stderr)
        return 1
    finally:
        directory.release()
    print("Everything is stopped.")
    return 0


class CannotStart(Exception):
    """Raised when Queuecast cannot be started; says why."""


def _serve(arguments: argparse.Namespace, directory: Directory, interrupted: threading.Event) -> None:
    try:
        stack = _started(arguments, directory, interrupted)
    except (StackError, StoreError, BadSetting, ModelsError) as error:
        raise CannotStart(error) from error
    try:
        notes = "".join(f"{note}\n" for note in _notes(arguments, stack))
        print(_HOW_TO_TRY.format(url=stack.url, workers=arguments.workers, logs=stack.logs, notes=notes), flush=True)
        while not interrupted.wait(0.5):
            stack.check()
    finally:
        stack.stop()


def _started(arguments: argparse.Namespace, directory: Directory, interrupted: threading.Event) -> Stack:
    environment = {"MODELS_PATH": str(arguments.models_path)} if arguments.models_path else {}
    redis_url = _redis_url(arguments.redis_url)
    # Here already, for every process of the stack would only say the same.
    chosen = Settings.from_environment(settings.inherited(REDIS_URL=redis_url or "redis://127.0.0.1:0", **environment))
    Catalog.read(chosen.models_path, chosen.default_model)
    if redis_url is not None:
        _check_store(chosen)
    return Stack(
        directory.path,
        workers=arguments.workers,
        ports=(_PREFERRED_PORT, 0) if arguments.port is None else (arguments.port,),
        redis_url=redis_url,
        store_program=program_on_path() if arguments.store == "path" else None,
        environment=environment,
        lock=directory.lock,
        show=_show,
        interrupted=interrupted,
    ).start()


def _check_store(chosen: Settings) -> None:
    try:
        Store(web_client(chosen.redis_url, chosen.redis_tls_verify), Limits.of(chosen)).ping()
    except (JobsError, RedisError) as error:  # the latter from what is no Redis at all
        parts = urlsplit(chosen.redis_url)
        place = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
        # The library's words for why it failed are left out: they may repeat the URL.
        raise StoreError(
            f"The store at {place} does not answer. Is it running, does it take connections from here, and are the "
            "password and TLS (redis:// or rediss://) in the URL right?"
        ) from error


def _notes(arguments: argparse.Namespace, stack: Stack) -> Iterator[str]:
    if arguments.port is None and stack.port != _PREFERRED_PORT:
        yield f"{_PREFERRED_PORT} is taken by another program, so it listens on {stack.port}."
    if arguments.workers == 0:
        yield "Without workers nothing is predicted: jobs wait until one runs."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/serve", description="Starts Queuecast on this machine.")
    parser.add_argument("--port", type=_port, help=f"default: {_PREFERRED_PORT} when it is free, else any free port")
    parser.add_argument("--workers", type=_workers, default=2, help="how many share the work (default: 2)")
    parser.add_argument(
        "--models-path",
        type=_folder,
        default=settings.inherited().get("MODELS_PATH"),
        metavar="DIR",
        help="the folder that holds the models (default: MODELS_PATH, else the ones that come with Queuecast)",
    )
    parser.add_argument(
        "--redis-url", metavar="URL|env", help="use this Redis instead of an own store; env: the one in REDIS_URL"
    )
    parser.add_argument(
        "--store",
        choices=("embedded", "path"),
        default="embedded",
        help="the own store: the Valkey that was installed with it, or the valkey-server or redis-server on the PATH",
    )
    return parser.parse_args()


def _folder(text: str) -> Path:
    # Made whole here: the processes of the stack run in the project's folder, not in the caller's.
    folder = Path(text).resolve()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    return folder


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: write 1 to 65535, or 0 for any free one")
    return port


def _workers(text: str) -> int:
    workers = int(text)
    if workers < 0:
        raise argparse.ArgumentTypeError(f"{text} workers cannot be started: write 0 or more")
    return workers


def _redis_url(wanted: str | None) -> str | None:
    if wanted != "env":
        return wanted
    url = settings.inherited().get("REDIS_URL")
    if url is None:
        raise BadSetting("REDIS_URL", "is not set, and --redis-url env asks for it")
    return url


def _show(name: str, line: str) -> None:
    print(f"{name:<9}| {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
