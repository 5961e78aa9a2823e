"""Whether the node is ready, and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgnode.bus.snapshots import NodeStatus
from pgnode.bus.state import State
from pgnode.supervisor.figures.health import not_ready

RUNNING = NodeStatus(State.RUNNING, True, "26.10.10", "1.0", "", 1)
IDLE = NodeStatus(State.IDLE, False, "26.10.10", "1.0", "", 0)


def test_a_node_that_serves_is_ready_and_so_is_one_that_waits_for_its_panel() -> None:
    assert not_ready(RUNNING, wanted=True, store_error="") == []
    assert not_ready(replace(RUNNING, state=State.RESTORING), wanted=True, store_error="") == []
    assert not_ready(IDLE, wanted=False, store_error="") == []


@pytest.mark.parametrize(
    ("status", "options", "because"),
    [
        (
            replace(IDLE, state=State.RESTORING),
            {"wanted": False},
            "the supervisor has just begun and does not know yet whether a core runs",
        ),
        (replace(IDLE, state=State.RECOVERING), {}, "the core does not serve, state recovering"),
        (
            replace(RUNNING, core_ready=False, core_api_error="too slow"),
            {},
            "the core does not serve, state running: too slow",
        ),
        (RUNNING, {"store_error": "disk full"}, "the store does not take changes: disk full"),
        (RUNNING, {"bus_answers": False}, "the bus (Redis) does not answer"),
        (replace(RUNNING, draining="the node is being drained"), {}, "the node is being drained"),
        (replace(RUNNING, unknown="set aside"), {}, "it is not known what has to run: set aside"),
    ],
)
def test_why_it_is_not(status: NodeStatus, options: dict[str, object], because: str) -> None:
    assert not_ready(status, **{"wanted": True, "store_error": "", **options}) == [because]  # type: ignore[arg-type]
