"""Several clients at once, each with one submission after another, until they are told to stop."""

import threading
import time

FIRST_WARMING = 400_000  # numbers of batches stay below
FIRST_SINGLE = 500_000


class Load:
    """`batches` clients submit batches, `singles` clients single predictions."""

    def __init__(self, caller, draw, *, batches, singles, pause):
        """`pause` is the time between two singles of one client."""
        self._caller = caller
        self._draw = draw
        self._pause = pause
        self._stop = threading.Event()
        self.submissions = {}
        self.failures = []
        self._threads = [
            *(self._client(draw.batch, 1 + place, batches, 0) for place in range(batches)),
            *(self._client(draw.single, FIRST_SINGLE + place, singles, pause) for place in range(singles)),
        ]

    def warm_up(self):
        """Has every model loaded and a large batch done: what processes take from then on is what they need."""
        for submission in self._draw.warming(FIRST_WARMING):
            self.submissions[submission.number] = submission
            self._caller.carry_out(submission)

    def start(self):
        """Begins to submit."""
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Has nothing new submitted any more."""
        self._stop.set()

    def join(self, seconds):
        """Waits until everything that was submitted has been followed to its end; True when it has in time."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _client(self, draw, number, step, pause):
        return threading.Thread(target=self._carry_out, args=(draw, number, step, pause), daemon=True)

    def _carry_out(self, draw, number, step, pause):
        try:
            while not self._stop.is_set():
                submission = self.submissions[number] = draw(number)
                self._caller.carry_out(submission)
                number += step
                self._stop.wait(pause)
        except Exception as error:  # a defect of this client: the run must not pass without it
            self.failures.append(f"the client broke: {error!r}")
            raise
