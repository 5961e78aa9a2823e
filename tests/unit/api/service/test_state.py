"""What the node's state means for a read."""

from __future__ import annotations

import pytest

from pgnode.api.service.state import StateChecks
from pgnode.bus.state import State
from pgnode.errors import BusUnavailableError, CoreNotStartedError, CoreUnavailableError, NodeError, NotInitializedError
from tests.unit.api.fakes import Node, status


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (State.IDLE, NotInitializedError, "backend not initialized"),
        (State.STOPPING, NotInitializedError, "backend not initialized"),
        (State.LINGERING, NotInitializedError, "backend not initialized"),
        (State.FAILED, NotInitializedError, "backend not initialized"),
        (State.STARTING, CoreNotStartedError, "core is not started yet"),
        (State.RECOVERING, CoreNotStartedError, "core is not started yet"),
        (None, BusUnavailableError, "the node's state is not known yet"),
    ],
)
def test_without_a_core_the_state_is_told(state: State | None, error: type[NodeError], text: str) -> None:
    node = Node()
    node.reads.status = None if state is None else status(state)
    checks = StateChecks(node.reads, node.refresh)
    assert not checks.core_answers()
    with pytest.raises(error, match=text):
        checks.require_core("failed")


def test_a_core_whose_api_is_silent_says_why() -> None:
    node = Node()
    node.reads.status = status(api_error="timed out")
    checks = StateChecks(node.reads, node.refresh)
    assert not checks.core_answers()
    with pytest.raises(CoreUnavailableError, match="failed to get it: timed out"):
        checks.require_core("failed to get it")


async def test_news_come_before_the_answer() -> None:
    node = Node()
    node.reads.status, node.news = None, status()
    checks = StateChecks(node.reads, node.refresh)
    assert await checks.after_refresh(lambda: b"yes" if checks.core_answers() else b"no") == b"yes"
    checks.require_core("failed")
