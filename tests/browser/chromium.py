"""A headless Chromium, driven by the DevTools protocol over a pair of pipes: no driver and no library needed.

https://chromedevtools.github.io/devtools-protocol/, with `--remote-debugging-pipe`: JSON texts that end with a NUL.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ANSWER_SECONDS = 20
END_SECONDS = 5
READ_BYTES = 64 * 1024
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # It talks to nobody but the page's server.
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def found():
    """The path of a Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser with a profile of its own; use as a context manager."""

    def __init__(self, program):
        self._program = program
        self._asked = 0
        self._unread = b""

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(prefix="queuecast-browser-", ignore_cleanup_errors=True)
        read, self._to_browser = _pipe()
        self._from_browser, write = _pipe()
        # As root its sandbox cannot be had.
        flags = [*FLAGS, f"--user-data-dir={self._profile.name}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        with open(os.devnull, "r+b") as nothing:
            self.pid = os.posix_spawn(
                self._program,
                [self._program, *flags],
                os.environ,
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, nothing.fileno(), standard) for standard in (0, 1, 2)),
                    (os.POSIX_SPAWN_DUP2, read, 3),
                    (os.POSIX_SPAWN_DUP2, write, 4),
                ],
                setpgroup=0,
            )
        os.close(read)
        os.close(write)
        return self

    def __exit__(self, *_):
        os.close(self._to_browser)  # it ends when nobody can tell it anything any more
        os.close(self._from_browser)
        if not self._has_ended(END_SECONDS):
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self._profile.cleanup()

    def page(self, url):
        """A new page that shows `url`."""
        target = self.ask("Target.createTarget", {"url": url})["targetId"]
        return Page(self, self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])

    def ask(self, method, parameters, session=None):
        """What the browser answers to a command."""
        self._asked += 1
        command = {"id": self._asked, "method": method, "params": parameters}
        os.write(self._to_browser, json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            message = self._message(deadline)
            if message.get("id") == self._asked:
                assert "error" not in message, message
                return message["result"]

    def _message(self, deadline):
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from_browser], [], [], max(deadline - time.monotonic(), 0))
            read = os.read(self._from_browser, READ_BYTES) if ready else b""
            assert read, "the browser has ended" if ready else "the browser does not answer"
            self._unread += read
        text, _, self._unread = self._unread.partition(b"\0")
        return json.loads(text)

    def _has_ended(self, seconds):
        deadline = time.monotonic() + seconds
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


class Page:
    """One page of a browser."""

    def __init__(self, browser, session):
        self._browser = browser
        self._session = session

    def run(self, script):
        """What a script gives in the page, as far as JSON can say it."""
        parameters = {"expression": script, "returnByValue": True}
        answer = self._browser.ask("Runtime.evaluate", parameters, self._session)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


def _pipe():
    """The two ends of a pipe, above the numbers that the browser wants them to have."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved
