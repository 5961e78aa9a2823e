"""A core that was brought back is read at once, however long the node's interval is."""

from __future__ import annotations

import asyncio
import time

import pytest

from pgnode.supervisor.control.client import NotAnsweredError, ask
from pgnode.supervisor.control.messages import TRAFFIC
from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from tests.faults.leftovers import tidy
from tests.faults.table import LOSSES
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill

#: Seconds that the supervisor has to answer; a machine under load needs more than an operator.
ANSWER_SECONDS = 20.0


async def age_seconds(node: NodeProcess) -> float | None:
    """Of the statistics; None where there are none. A caller of the API would have the core read for itself."""
    polled = (await asyncio.to_thread(ask, node.run_dir, TRAFFIC, seconds=ANSWER_SECONDS))["polled"]
    return polled["age_ms"] / 1000 if polled["age_ms"] is not None and not polled["error"] else None


@pytest.mark.fault(
    "core killed where counters are read once a minute",
    unmeasured=dict.fromkeys(
        LOSSES, "the time until the new core was read is what is looked at; see the other rows of killed cores"
    ),
)
async def test_statistics_are_read_as_soon_as_the_core_is_back(trial: Trial) -> None:
    async with (
        NodeProcess(env={"STATS_UPDATE_INTERVAL_SECONDS": "60", "GRPC_WORKERS": "0"}) as node,
        node.panel() as panel,
    ):
        await panel.start(make_config(plain_inbounds()[:1]), [])

        async def old() -> bool:
            return (await age_seconds(node) or 0) >= 3

        await eventually(old, "the first reading is three seconds old")
        first = core_pid(node)
        killed_at = time.monotonic()
        kill(first)
        trial.struck()

        async def read_again() -> bool:
            # An age is from after the kill when it is less than the time since then; that of before is 3 s more.
            age = await age_seconds(node)
            since = time.monotonic() - killed_at
            return core_pid(node) not in (0, first) and age is not None and age < since + 2

        await eventually(read_again, "the new core was read", errors=(NotAnsweredError,))
        trial.well()
        await tidy(node, trial)
