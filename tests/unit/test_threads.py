"""The threads of a web process where the system allows no more of them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# A thread takes address space for its stack: a limit to that is one to threads, also for root.
PROGRAM = """
import resource, threading, time
from api.web_worker import Threads

told = []
threads = Threads({most}, told.append)
threads.submit(int).result()
with open("/proc/self/statm") as sizes:
    used = int(sizes.read().split()[0]) * resource.getpagesize()
threading.stack_size(64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (used + {room}, used + {room}))
done = [threads.submit(time.sleep, 0.01) for _ in range(40)]
for each in done:
    each.result(30)
print(len(threads._threads), *sorted(set(told)))
"""


def count(most, room):
    program = PROGRAM.format(most=most, room=room)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    there, *told = map(int, done.stdout.split())
    return there, told


def test_where_the_system_allows_no_more_threads_those_that_there_are_do_the_work():
    there, told = count(20, 300 << 20)
    assert 1 < there < 20
    assert told == [there]  # so many seats are left


def test_as_many_threads_as_are_wanted_come_where_they_may():
    there, told = count(3, 1 << 40)
    assert there == 3
    assert told == []
