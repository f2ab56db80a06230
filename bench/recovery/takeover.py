"""When others begin what a worker held."""

from collections.abc import Sequence

from bench.recovery.load import Busy
from bench.recovery.stage import Stage


class Takeover:
    """Follows the chunks that a worker held when it died or was told to end; all times by the store's clock."""

    def __init__(self, stage: Stage, busy: Busy, held: Sequence[str], since: int) -> None:
        self._stage = stage
        self._batch = busy.batch
        self._held = held
        self._worker = busy.name
        self._since = since
        self._started: dict[str, int] = {}

    @property
    def seconds(self) -> list[float]:
        """From `since` to the next start of each chunk that has been started."""
        return [(self._started[index] - self._since) / 1000 for index in self._held if index in self._started]

    def is_complete(self) -> bool:
        """Looks; whether every chunk has been begun by another worker, or is done."""
        if set(self._held) <= set(self._started):
            return True
        leases, done = self._stage.leases(self._batch), self._stage.are_done(self._batch, self._held)
        for index in self._held:
            if index in leases and leases[index].worker != self._worker:
                self._started.setdefault(index, leases[index].started_at)
            elif done[index]:  # begun and ended between two looks, or by the worker itself
                self._started.setdefault(index, self._stage.now())
        return set(self._held) <= set(self._started)
