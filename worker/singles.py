"""Single predictions: all that wait for one model version are predicted in one call, and none harms another."""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil
from time import monotonic

from jobs.errors import StoreAway, StoreFull
from jobs.inbox_leases import LeasedSingles, SingleResult
from jobs.keys import new_token
from jobs.leases import Leases
from worker.batch import named
from worker.child import Child, ChildDied
from worker.duty import Duty, LeaseLost, Stopping
from worker.frames import Frame
from worker.pace import Pace
from worker.search import LOAD_FAILURE, SECOND_TRY_TIMES, Innocent
from worker.served import Served
from worker.suspects import ERRORS, LOST, LOST_TRIES, PIECES, ROW_TRIES

log = logging.getLogger(__name__)

SINGLES_AT_ONCE = 256
STILLBORN_SECONDS = 1.0  # the pause after predictors that died of something else
MOST_INNOCENT = 3  # times that a predictor dies of something else before all is handed back


@dataclass(frozen=True, slots=True)
class Group:
    """Some inputs by job id that are predicted together; `deaths` counts those of one that stands alone."""

    inputs: dict[str, str]
    deaths: int = 0

    def after_death(self) -> list["Group"]:
        """What to try when it killed the predictor: its pieces, or it once more if it stands alone."""
        if len(self.inputs) == 1:
            return [Group(self.inputs, self.deaths + 1)]
        items = list(self.inputs.items())
        size = ceil(len(items) / PIECES)
        return [Group(dict(items[start : start + size])) for start in range(0, len(items), size)]


class Singles:
    """Predicts what waits in inboxes."""

    def __init__(
        self, leases: Leases, child: Child, served: Served, duty: Duty, pace: Pace, *, max_load_attempts: int
    ) -> None:
        self._leases = leases
        self._child = child
        self._served = served
        self._duty = duty
        self._pace = pace
        self._max_load_attempts = max_load_attempts
        self._searches = False
        self.last_model = ""  # what was predicted last
        self.last_count = 0  # how many there were
        self.small_batches_wait = False  # behind that

    def work(self, model_keys: Sequence[str]) -> bool:
        """Predicts what waits for the first of these models that has something; False when none has.

        Raises Stopping, with everything handed back.
        """
        singles = self._leases.lease_singles(model_keys, SINGLES_AT_ONCE, self._duty.ticket_id)
        self.last_count = len(singles.inputs) if singles else 0
        if singles is None:
            return False
        self.last_model, self.small_batches_wait = singles.model_key, singles.small_batches > 0
        self._duty.hold(singles.leases)
        try:
            if singles.losses >= LOST_TRIES:
                self._refuse_all(singles, singles.inputs, *ERRORS[LOST])
            else:
                self._predict(singles)
        except Stopping:
            self._duty.insist(lambda: self._leases.give_back(singles.leases, "shutdown"))
            raise
        except LeaseLost:
            log.info("single predictions of %s were taken over", singles.model_key)
        except Innocent:
            self._duty.insist(lambda: self._leases.give_back(singles.leases))
            self._duty.pause(STILLBORN_SECONDS)
        except Exception:  # no process can be started, say: others may have more luck
            self._duty.insist(lambda: self._leases.give_back(singles.leases))
            raise
        finally:
            self._duty.release(singles.leases)
        return True

    def _predict(self, singles: LeasedSingles) -> None:
        """Predicts them together; what kills the predictor is divided until the one that does it stands alone.

        Each death costs everybody who waits some time: so all that may be innocent comes first, newcomers too.
        """
        groups = [Group(singles.inputs)]
        while groups := [piece for group in groups for piece in self._try(singles, group)]:
            self._let_newcomers_go_first(singles.model_key)

    def _try(self, singles: LeasedSingles, group: Group) -> list[Group]:
        """Has a group predicted; what is to be tried next, where that killed the predictor."""
        death = self._ask_until_loaded(singles, group.inputs, SECOND_TRY_TIMES if group.deaths else 1)
        if death is None:
            return []
        if len(group.inputs) == 1 and group.deaths + 1 == ROW_TRIES:
            self._refuse_all(singles, group.inputs, *ERRORS[death.reason])
            return []
        return group.after_death()

    def _let_newcomers_go_first(self, model_key: str) -> None:
        """Predicts what came meanwhile; a search in there does not look at what comes then, or this would not end."""
        if self._searches:
            return
        self._searches = True
        try:
            self.work([model_key])
        except (StoreAway, StoreFull) as error:
            log.warning("could not look at the inbox: %s", error)
        finally:
            self._searches = False

    def _ask_until_loaded(self, singles: LeasedSingles, inputs: dict[str, str], times: float) -> ChildDied | None:
        """Asks; the death of the predictor that came of it. When it dies while it loads the model, asks again."""
        loads = 0
        while True:
            death = self._ask(singles, inputs, times)
            if death is None or death.doing is None or death.doing.stage != "load":
                return death
            loads += 1
            if loads == self._max_load_attempts:
                self._fail(list(inputs), "model_load_failed", LOAD_FAILURE)
                return None

    def _ask(self, singles: LeasedSingles, inputs: dict[str, str], times: float) -> ChildDied | None:
        """Asks and hands in the answer; returns the death that came of it instead, if one did.

        Raises Innocent when the predictor dies again and again of something else.
        """
        if singles.model_key not in self._served:  # any more, since a part of them was refused
            self._give_back(singles, inputs)
            return None
        model = self._served.version(singles.model_key)
        frame = Frame({"do": "singles", "model": named(model)}, (json.dumps(list(inputs.values())).encode(),))
        for _ in range(MOST_INNOCENT):
            question = self._child.send(frame, self._pace.limit(singles.model_key, times))
            began = monotonic()
            try:
                answer = self._child.wait(question, self._duty.tick)
            except ChildDied as death:
                if death.doing is None or death.doing.number != question.number:
                    self._duty.tick()
                    continue
                self._note(singles, inputs, death, monotonic() - began)
                return death
            self._hand_in(singles, inputs, answer)
            return None
        raise Innocent

    def _hand_in(self, singles: LeasedSingles, inputs: dict[str, str], answer: Frame) -> None:
        if answer.head["is"] == "refused":
            self._refuse(singles, list(inputs), answer)
            return
        self._pace.learn(singles.model_key, len(inputs), answer.head["seconds"], singles=True)
        results = dict(zip(inputs, map(_result, json.loads(answer.bodies[0])), strict=True))
        self._duty.insist(lambda: self._leases.commit_singles(singles.token, results))

    def _note(self, singles: LeasedSingles, inputs: dict[str, str], death: ChildDied, seconds: float) -> None:
        facts = (list(inputs), death.reason, seconds, new_token())
        self._duty.insist(lambda: self._leases.note_singles(singles.token, *facts))

    def _refuse_all(self, singles: LeasedSingles, inputs: dict[str, str], code: str, message: str) -> None:
        outcome = SingleResult(None, code, message)
        self._duty.insist(lambda: self._leases.commit_singles(singles.token, dict.fromkeys(inputs, outcome)))

    def _give_back(self, singles: LeasedSingles, job_ids: Collection[str]) -> None:
        leases = [lease for lease in singles.leases if lease.job_id in job_ids]
        self._duty.insist(lambda: self._leases.give_back(leases))

    def _refuse(self, singles: LeasedSingles, job_ids: list[str], answer: Frame) -> None:
        code, message = answer.head["code"], answer.head["message"]
        if self._served.refused(singles.model_key, code, message):
            self._give_back(singles, job_ids)
        else:
            self._fail(job_ids, code, message)

    def _fail(self, job_ids: list[str], code: str, message: str) -> None:
        self._duty.insist(lambda: self._leases.fail(job_ids, code, message))


def _result(outcome: dict[str, object]) -> SingleResult:
    if "result" in outcome:
        return SingleResult(json.dumps(outcome["result"], ensure_ascii=False, separators=(",", ":")))
    column = outcome["column"]
    return SingleResult(None, str(outcome["code"]), str(outcome["message"]), None if column is None else str(column))
