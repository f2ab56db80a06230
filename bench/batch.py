"""A batch, ours beside its peers, in one run: `python -m bench.batch`. README.md says what is measured and how."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.check import Wrong, check_rows
from bench.environments import CannotInstall
from bench.goals import LARGE_ROWS
from bench.measured import Key, Measured
from bench.memory import Sampler
from bench.ours import KEEPS, Ours
from bench.peer import PEERS_BY_NAME, Peer, PeerFailed, RunningPeer
from bench.picture import draw
from bench.report import report
from bench.work import ROOT, Model, models, table

RESULTS = ROOT / "bench" / "results"
WARM_ROWS = 10_000
SMALL_SIZES = (10_000, 100_000)
QUICK_ROWS = 100_000
QUICK = ("ours", "naive_pandas", "pyarrow_stream", "polars_whole")
# Short ones are repeated within a round.
REPEATS = {10_000: 5, 100_000: 3}
FIRST_ROWS = 3


class Run:
    """One run of the whole measurement."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked = asked
        self.measured = Measured(asked.rows)
        self.models_path = folder / "models"
        self.models = models(self.models_path)
        self.output = folder / "output"
        self.sizes = (*(size for size in SMALL_SIZES if size < asked.rows), asked.rows)
        for size in (WARM_ROWS, *self.sizes, *((LARGE_ROWS,) if asked.large else ())):
            # Read once, so that every run finds it in the page cache.
            table(size).read_bytes()

    def all(self) -> Measured:
        for turn in range(self.asked.repeat):
            last = turn == self.asked.repeat - 1
            _say(f"Round {turn + 1} of {self.asked.repeat}")
            if "ours" in self.asked.only:
                self._ours(turn, last)
            for name in self.asked.only:
                if name in PEERS_BY_NAME:
                    self._peer(PEERS_BY_NAME[name], turn, last)
        _say("Memory, in runs of its own")
        self._memory()
        return self.measured

    def _ours(self, turn: int, last: bool) -> None:
        with Ours(self.models_path) as ours:
            for model in self.models.values():
                ours.batch(model, WARM_ROWS, "join")
            for key in self._orders("ours", joins=True, linear_only=False, last=last):
                phases = [ours.batch(self.models[key.model], key.rows, key.output) for _ in range(_repeats(key.rows))]
                self.measured.phases.setdefault(key, []).extend(phases)
                self._note(key, turn, [phase["wall"] for phase in phases])
            for rows in (self.asked.rows, *((LARGE_ROWS,) if self.asked.large and last else ())):
                seconds = [ours.first_row(self.models["linear"], rows) for _ in range(FIRST_ROWS)]
                self._figure(f"first row of {rows}", seconds)
            behind = ours.behind(self.models["hgb"], self.asked.rows)
            for what, seconds in behind.items():
                self._figure(f"{what} behind large", seconds)

    def _peer(self, peer: Peer, turn: int, last: bool) -> None:
        if peer.name in self.measured.absent:
            return
        try:
            with RunningPeer(peer) as running:
                for model in self.models.values():
                    self._perform(running, Key(peer.name, "predictions", model.name, WARM_ROWS))
                for key in self._orders(peer.name, peer.joins, peer.linear_only, last):
                    self._note(key, turn, [self._perform(running, key) for _ in range(_repeats(key.rows))])
        except (CannotInstall, PeerFailed, Wrong) as error:
            self.measured.absent[peer.name] = str(error)
            _say(f"  {error}")

    def _orders(self, who: str, joins: bool, linear_only: bool, last: bool) -> list[Key]:
        """What is asked of everyone in turn: predictions by both models, and joins of every size."""
        rows, found = self.asked.rows, []
        if joins:
            sizes = (*self.sizes, LARGE_ROWS) if self.asked.large and last else self.sizes
            found += [Key(who, "join", "linear", size) for size in sizes]
        found.append(Key(who, "predictions", "linear", rows))
        return found if linear_only else [*found, Key(who, "predictions", "hgb", rows)]

    def _perform(self, running: RunningPeer, key: Key) -> float:
        """The seconds that a peer took; its output is counted and thrown away."""
        model: Model = self.models[key.model]
        try:
            done = running.perform(model.file, table(key.rows), self.output, KEEPS[key.output])
        finally:
            _remove(self.output)
        check_rows(running.peer.name, done["rows"], key.rows)
        return float(done["wall"])

    def _memory(self) -> None:
        sizes = (*self.sizes, LARGE_ROWS) if self.asked.large else self.sizes
        if "ours" in self.asked.only:
            for size in sizes:
                with Ours(self.models_path) as ours:
                    peaks = ours.memory(self.models["linear"], size)
                self.measured.memory[Key("ours", "join", "linear", size)] = peaks
                _say(f"  ours, {size:,} rows: {peaks}")
        for name in self.asked.only:
            if name in PEERS_BY_NAME and name not in self.measured.absent:
                self._peer_memory(PEERS_BY_NAME[name], sizes)

    def _peer_memory(self, peer: Peer, sizes: Sequence[int]) -> None:
        keys = [Key(peer.name, "join", "linear", size) for size in sizes] if peer.joins else []
        for key in [*keys, Key(peer.name, "predictions", "linear", self.asked.rows)]:
            try:
                with RunningPeer(peer) as running, Sampler({"peer": running.pid}) as sampler:
                    self._perform(running, key)
                    store = running.store_peak()
            except (PeerFailed, Wrong) as error:
                _say(f"  {error}")
                continue
            self.measured.memory[key] = {**sampler.peaks["peer"], "redis": store}
            _say(f"  {key.who}, {key.output}, {key.rows:,} rows: {self.measured.memory[key]}")

    def _note(self, key: Key, turn: int, walls: list[float]) -> None:
        self.measured.add(key, turn, walls)
        _say(f"  {key.who:<16}{key.output:<12}{key.model:<7}{key.rows:>10,}  {self.measured.walls[key][turn]:8.3f} s")

    def _figure(self, name: str, seconds: list[float]) -> None:
        self.measured.figures.setdefault(name, []).extend(seconds)
        _say(f"  {name}: {', '.join(f'{each:.3f}' for each in seconds) or 'over before it could be asked'}")


def main() -> int:
    asked = _arguments()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        measured = Run(asked, Path(folder)).all()
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    page = report(f"A batch, {today}", measured)
    page += f"\nMedians of {asked.repeat} rounds; load of the machine before the run: {load:.2f}.\n"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{today}-{asked.name}"
    if "ours" in asked.only and not asked.quick:
        draw(path.with_suffix(".svg"), measured)
        page += f"\n![rows per second and memory over the size of the file]({path.name}.svg)\n"
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(measured.to_json(), indent=1) + "\n", encoding="utf-8")
    print("\n" + page)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.batch", description=__doc__)
    parser.add_argument("--rows", type=int, help="rows of the table (default: 1000000)")
    parser.add_argument("--repeat", type=int, help="rounds (default: 3)")
    parser.add_argument("--only", help="who, by the beginnings of their names: ours,naive,pyarrow")
    parser.add_argument("--large", action="store_true", help="10M rows too (570 MB), in the last round")
    parser.add_argument("--quick", action="store_true", help="100,000 rows, one round, the scripts only")
    parser.add_argument("--name", help="of the files in bench/results (default: batch)")
    asked = parser.parse_args()
    asked.rows = asked.rows or (QUICK_ROWS if asked.quick else 1_000_000)
    asked.repeat = asked.repeat or (1 if asked.quick else 3)
    asked.name = asked.name or ("batch-quick" if asked.quick else "batch")
    everyone = ("ours", *PEERS_BY_NAME)
    asked.only = _chosen(asked.only.split(","), everyone) if asked.only else QUICK if asked.quick else everyone
    if not asked.only:
        parser.error(f"nobody is called so; there are {', '.join(everyone)}")
    return asked


def _chosen(beginnings: Sequence[str], everyone: Sequence[str]) -> list[str]:
    return [who for who in everyone if who.startswith(tuple(beginnings))]


def _repeats(rows: int) -> int:
    return REPEATS.get(rows, 1)


def _remove(output: Path) -> None:
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
