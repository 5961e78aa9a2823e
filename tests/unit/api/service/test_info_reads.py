"""What the node is and how it does, from memory."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

import pytest

from pgnode.api.service.info_reads import InfoReads
from pgnode.api.service.state import StateChecks
from pgnode.errors import BusUnavailableError, CoreUnavailableError, NotInitializedError
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import Node, status


def reads_of(node: Node) -> InfoReads:
    return InfoReads(node.reads, StateChecks(node.reads, node.refresh), node_version="0.3.0")


async def test_what_is_cached_is_what_the_handler_says_or_nothing() -> None:
    node = Node()
    node.reads.bodies = {"backend": b"back"}
    reads = reads_of(node)
    assert reads.info_cached() == reads.info()
    assert reads.backend_stats_cached() == reads.backend_stats() == b"back"
    for state in (None, status("recovering"), status(api_error="no answer")):
        node.reads.status = state
        assert reads.info_cached() is reads.backend_stats_cached() is None
    assert node.refreshes == 0
    node.reads.status, node.reads.bodies = status(), {}
    assert reads.backend_stats_cached() is None


async def test_what_was_not_read_yet_may_say_that_the_core_was_stopped() -> None:
    """By the other worker's answer a caller knows it already."""
    node = Node()
    node.reads.bodies = {"backend": b"back"}
    reads = reads_of(node)
    node.reads.unheard = [lambda: None]
    assert reads.info_cached() is reads.backend_stats_cached() is None
    info, stats = reads.info(), reads.backend_stats()
    assert isinstance(info, Awaitable)
    assert isinstance(stats, Awaitable)
    node.reads.status = status("idle")
    assert not pb.BaseInfoResponse.FromString(await info).started
    with pytest.raises(NotInitializedError):
        await stats
    assert node.refreshes == 2


async def test_info_says_what_is_known_in_every_state() -> None:
    node = Node()
    node.reads.status = None
    answer = reads_of(node).info()
    assert isinstance(answer, Awaitable)
    info = pb.BaseInfoResponse.FromString(await answer)
    assert (info.started, info.core_version, info.core_type) == (False, "", "xray")
    assert (info.node_version, info.version) == ("0.5.2.0+pgnode.0.3.0", "0.3.0")
    assert node.refreshes == 1


async def test_a_core_that_is_being_taken_over_is_started() -> None:
    node = Node()
    node.reads.status = replace(status("restoring"), core_ready=True)
    answer = reads_of(node).info()
    assert isinstance(answer, Awaitable)
    info = pb.BaseInfoResponse.FromString(await answer)
    assert (info.started, info.running, info.core_version) == (True, True, "26.10.10")


async def test_backend_stats_say_why_there_are_none() -> None:
    node = Node()
    reads = reads_of(node)
    with pytest.raises(CoreUnavailableError, match="failed to get sys stats: not read from the core yet"):
        reads.backend_stats()
    node.reads.status = status("idle")
    answer = reads.backend_stats()
    assert isinstance(answer, Awaitable)
    with pytest.raises(NotInitializedError):
        await answer


def test_system_stats_need_no_core_but_the_supervisor() -> None:
    node = Node()
    node.reads.status = None
    with pytest.raises(BusUnavailableError, match="no system statistics yet"):
        reads_of(node).system_stats()
    node.reads.bodies = {"system": b"sys"}
    assert reads_of(node).system_stats() == b"sys"
