"""What the node's state means for a read."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from pgnode.api.service.state import StateChecks
from pgnode.bus.state import State
from pgnode.errors import BusUnavailableError, CoreNotStartedError, CoreUnavailableError, NodeError, NotInitializedError
from tests.support.polling import eventually, next_turn
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
        (State.RESTORING, CoreUnavailableError, "failed: the node was restarted and still takes over its core"),
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


async def test_a_supervisor_that_has_just_begun_is_waited_for() -> None:
    """Until it has taken its core over, or, where that is enough, has found it."""
    node = Node()
    node.reads.status = status("restoring")
    checks = StateChecks(node.reads, node.refresh)
    taken_over = asyncio.create_task(checks.after_refresh(checks.core_answers))
    found = asyncio.create_task(checks.after_refresh(lambda: True, core_found=True))
    await eventually(lambda: node.refreshes == 2, "both wait for news")
    node.reads.status = replace(status("restoring"), core_ready=True)
    node.reads.came.set()
    assert await found
    await next_turn()
    assert not taken_over.done()
    node.reads.status = status()
    node.reads.came.set()
    assert await taken_over


async def test_it_is_waited_for_up_to_a_limit() -> None:
    node = Node()
    node.reads.status = status("restoring")
    checks = StateChecks(node.reads, node.refresh, known_seconds=0.01)
    with pytest.raises(CoreUnavailableError, match="failed: the node was restarted"):
        await checks.after_refresh(lambda: checks.require_core("failed"))


@pytest.mark.parametrize("state", [State.IDLE, State.STARTING, State.FAILED, None])
async def test_what_is_known_is_not_waited_for(state: State | None) -> None:
    node = Node()
    node.reads.status = None if state is None else status(state)
    begun = time.monotonic()
    await StateChecks(node.reads, node.refresh, known_seconds=600.0).after_refresh(lambda: None)
    assert time.monotonic() - begun < 300
