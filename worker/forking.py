"""What the nursery does: it has imported everything that a predictor needs, has predicted nothing, and forks.

A thread pool of OpenMP or BLAS does not survive a fork, and whoever uses one afterwards hangs. So no model is loaded
and nothing is predicted here, and there is one thread only.

| the parent says | | the nursery says | |
| --- | --- | --- | --- |
| `fork <number>`, with a descriptor | a predictor is to answer there | `forked <number> <pid>` | it runs |
| `kill <number>` | end it, if it still runs | `ended <number> <status>` | its exit status, or minus its signal |

Only the nursery sends signals to predictors: it has not waited for those that it knows, so their pids are theirs.
"""

import gc
import os
import select
import signal
import socket
import sys
from collections import deque
from contextlib import suppress
from typing import NoReturn

import numpy as np

# What most models are made of, so that a new predictor need not import it before its first answer.
import sklearn.compose
import sklearn.ensemble
import sklearn.impute
import sklearn.linear_model
import sklearn.pipeline  # noqa: F401

# What a predictor runs: imported here so that it is there when one is forked.
import worker.predictor  # noqa: F401
from worker.leashed import die_with_parent
from worker.memory import data_allowance, limit_data, offer_to_the_kernel

_PIECE_BYTES = 4096
_MOST_DESCRIPTORS = 16  # in one piece
_STANDARD_DESCRIPTORS = 3
# On Linux no program that a model starts inherits a channel.
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Forks:
    """The predictors of one parent, seen from the nursery."""

    def __init__(self, descriptor: int, memory_bytes: int) -> None:
        self._control = socket.socket(fileno=descriptor)
        self._memory_bytes = memory_bytes
        self._unread = b""
        self._handed: deque[int] = deque()
        self._living: dict[int, int] = {}  # the pid of each number

    def run(self) -> int:
        """Returns in every predictor, with the descriptor of its channel. In the nursery it never returns."""
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler the bell would not be rung
        signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # what is here is never collected in a predictor either, so its pages stay shared
        self._data_allowance = data_allowance(self._memory_bytes)
        while True:
            ready, _, _ = select.select([self._control, self._bell], [], [])
            if self._bell in ready:
                self._reap()
            if self._control in ready:
                channel = self._obey()
                if channel is not None:
                    return channel

    def _obey(self) -> int | None:
        """Does what the parent says; not None in a predictor that was forked for it."""
        try:
            piece, handed, _, _ = socket.recv_fds(self._control, _PIECE_BYTES, _MOST_DESCRIPTORS, _RECEIVE_FLAGS)
        except ConnectionError:
            self._end()
        self._handed.extend(handed)
        if not piece:
            self._end()
        *lines, self._unread = (self._unread + piece).split(b"\n")
        for line in lines:
            word, _, number = line.decode().partition(" ")
            if word == "kill":
                self._kill(int(number))
            else:
                channel = self._fork(int(number), self._handed.popleft())
                if channel is not None:
                    return channel
        return None

    def _fork(self, number: int, channel: int) -> int | None:
        nursery = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes: the parent asks again when it needs one
            print(f"a predictor could not be forked: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log
            os.close(channel)
            self._say(f"ended {number} 1")
            return None
        if pid == 0:
            self._become_predictor(nursery, channel)
            return channel
        os.close(channel)
        self._living[number] = pid
        self._say(f"forked {number} {pid}")
        return None

    def _become_predictor(self, nursery: int, channel: int) -> None:
        """Keeps nothing of the nursery's but its memory, and is limited from here on."""
        die_with_parent(nursery)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (self._control, self._bell, self._rope):
            each.close()
        _close_all_but(channel)
        offer_to_the_kernel()
        limit_data(self._data_allowance)
        np.random.seed()  # or every predictor would draw the same random numbers
        gc.enable()

    def _kill(self, number: int) -> None:
        if number in self._living:
            os.kill(self._living[number], signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._bell.recv(_PIECE_BYTES)
        for number, pid in list(self._living.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._living[number]
                self._say(f"ended {number} {os.waitstatus_to_exitcode(status)}")

    def _say(self, line: str) -> None:
        try:
            self._control.sendall(line.encode() + b"\n")
        except ConnectionError:
            self._end()

    def _end(self) -> NoReturn:
        """The parent is gone, or wants no more: nobody is left to answer."""
        for pid in self._living.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        sys.exit()


def _close_all_but(channel: int) -> None:
    # Not by counting up to the limit of descriptors: in some containers that is a thousand million.
    for name in os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"):
        if int(name) >= _STANDARD_DESCRIPTORS and int(name) != channel:
            with suppress(OSError):  # the one that this list was read from
                os.close(int(name))
