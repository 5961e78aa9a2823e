"""Short pauses for a node whose core dies again and again: with this folder on PYTHONPATH, each is a twentieth of what it is."""

from __future__ import annotations

import dataclasses

from pgnode.supervisor.processes.restart_policy import GiveUp, RestartPolicy, Retry

#: The share of each pause that is left.
SHARE = 0.05

_real_died = RestartPolicy.died


def _died(self: RestartPolicy, now: float, exit_code: int | None, chance: float) -> Retry | GiveUp:
    decision = _real_died(self, now, exit_code, chance)
    if isinstance(decision, Retry):
        return Retry(decision.delay_seconds * SHARE)
    return dataclasses.replace(decision, pause_seconds=decision.pause_seconds * SHARE)


RestartPolicy.died = _died  # type: ignore[method-assign]
