"""Single predictions: all that wait for one model version are predicted in one call, and none harms another."""

import json
import logging
from collections.abc import Sequence
from itertools import islice

from jobs.leases import LeasedSingles, Leases, SingleResult
from jobs.record import ModelVersion
from worker.child import Child, ChildDied
from worker.duty import Duty, LeaseLost, Stopping
from worker.frames import Frame
from worker.served import Served

log = logging.getLogger(__name__)

SINGLES_AT_ONCE = 256


class Singles:
    """Predicts what waits in inboxes."""

    def __init__(self, leases: Leases, child: Child, served: Served, duty: Duty) -> None:
        self._leases = leases
        self._child = child
        self._served = served
        self._duty = duty
        self.proved_guilty = False  # a single has killed the predictor alone: what else died with it is not to blame

    def work(self, model_keys: Sequence[str]) -> bool:
        """Predicts what waits for the first of these models that has something; False when none has.

        Raises Stopping, with everything handed back.
        """
        singles = self._leases.lease_singles(model_keys, SINGLES_AT_ONCE, self._duty.ticket_id)
        if singles is None:
            return False
        self._duty.hold(singles.leases)
        try:
            self._predict(singles, singles.inputs)
        except Stopping:
            self._leases.give_back(singles.leases, counted=False)
            raise
        except LeaseLost:
            log.info("single predictions of %s were taken over", singles.model_key)
        finally:
            self._duty.release(singles.leases)
        return True

    def _predict(self, singles: LeasedSingles, inputs: dict[str, str]) -> None:
        """Predicts them together; when that kills the predictor, in halves, until the one that does it stands alone."""
        try:
            self._ask(singles, inputs)
        except ChildDied:
            if len(inputs) == 1:
                self._predict_once_more(singles, inputs)
                return
            items = iter(inputs.items())
            self._predict(singles, dict(islice(items, len(inputs) // 2)))
            self._predict(singles, dict(items))

    def _predict_once_more(self, singles: LeasedSingles, inputs: dict[str, str]) -> None:
        try:
            self._ask(singles, inputs)
        except ChildDied:
            self.proved_guilty = True
            outcome = SingleResult(None, "worker_crashed", "predicting this row killed the predicting process twice")
            self._duty.insist(lambda: self._leases.commit_singles(singles.token, dict.fromkeys(inputs, outcome)))

    def _ask(self, singles: LeasedSingles, inputs: dict[str, str]) -> None:
        model = self._served.version(singles.model_key)
        body = json.dumps(list(inputs.values())).encode()
        answer = self._child.ask(Frame({"do": "singles", "model": named(model)}, (body,)), self._duty.tick)
        if answer.head["is"] == "refused":
            self._refuse(singles, list(inputs), answer)
            return
        results = dict(zip(inputs, map(_result, json.loads(answer.bodies[0])), strict=True))
        self._duty.insist(lambda: self._leases.commit_singles(singles.token, results))

    def _refuse(self, singles: LeasedSingles, job_ids: list[str], answer: Frame) -> None:
        code, message = answer.head["code"], answer.head["message"]
        if self._served.refused(singles.model_key, code, message):
            leases = [lease for lease in singles.leases if lease.job_id in job_ids]
            self._duty.insist(lambda: self._leases.give_back(leases, counted=False))
        else:
            self._duty.insist(lambda: self._leases.fail(job_ids, code, message))


def named(model: ModelVersion) -> list[str]:
    """A model version as frames carry it."""
    return [model.name, model.version, model.sha256]


def _result(outcome: dict[str, object]) -> SingleResult:
    if "result" in outcome:
        return SingleResult(json.dumps(outcome["result"], ensure_ascii=False, separators=(",", ":")))
    column = outcome["column"]
    return SingleResult(None, str(outcome["code"]), str(outcome["message"]), None if column is None else str(column))
