"""The maintenance calls without a transport: what is checked, and what goes to the supervisor."""

from __future__ import annotations

import json

import pytest

from pgnode.api.service.maintenance import EXCHANGE_SECONDS, MaintenanceService
from pgnode.bus.commands import Kind
from pgnode.errors import ConflictError, InvalidRequestError
from tests.unit.api.fakes import Node, status

JOB_SECONDS, WRITE_SECONDS = 290.0, 30.0


@pytest.fixture
def node() -> Node:
    made = Node()
    made.commands.reply = b'{"detail": "done"}'
    return made


@pytest.fixture
def service(node: Node) -> MaintenanceService:
    return MaintenanceService(
        node.reads,
        node.commands,
        node.refresh,
        job_timeout_seconds=JOB_SECONDS,
        write_timeout_seconds=WRITE_SECONDS,
        node_version="1.2.3",
    )


async def test_the_first_call_answers_from_memory(node: Node, service: MaintenanceService) -> None:
    assert json.loads(await service.hello()) == {
        "detail": "pgnode 1.2.3 is running",
        "node_version": "0.5.2.0+pgnode.1.2.3",
        "core_version": "26.10.10",
        "state": "running",
    }
    node.reads.status = None
    answer = json.loads(await service.hello())
    assert (answer["core_version"], answer["state"]) == ("", "unknown")
    assert "None" in repr(service)
    assert not node.commands.calls


@pytest.mark.parametrize(
    ("handler", "body", "kind", "sent", "seconds"),
    [
        ("core_update", b'{"core_version": "v26.10.10"}', Kind.CORE_UPDATE, {"core_version": "26.10.10"}, JOB_SECONDS),
        ("geofiles", b'{"region": "IRAN"}', Kind.GEOFILES, {"region": "iran"}, JOB_SECONDS),
        ("update", b"{}", Kind.UPDATE, None, JOB_SECONDS),
        ("hard_reset", b"", Kind.HARD_RESET, None, WRITE_SECONDS - EXCHANGE_SECONDS),
    ],
)
async def test_a_job_is_handed_over_and_its_news_are_fetched(
    node: Node,
    service: MaintenanceService,
    *,
    handler: str,
    body: bytes,
    kind: Kind,
    sent: dict[str, str] | None,
    seconds: float,
) -> None:
    node.news = status("idle")
    assert await getattr(service, handler)(body) == node.commands.reply
    [(called, request, timeout_seconds)] = node.commands.calls
    assert (called, timeout_seconds) == (kind, seconds + EXCHANGE_SECONDS)
    assert (json.loads(request) if request else None) == sent
    assert node.reads.status == node.news


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        ("core_update", b""),
        ("core_update", b'{"core_version": 1}'),
        ("geofiles", b'{"region": "mars"}'),
        ("update", b'{"command": "x"}'),
        ("hard_reset", b"[]"),
    ],
)
async def test_bad_requests_reach_no_supervisor(
    node: Node, service: MaintenanceService, handler: str, body: bytes
) -> None:
    with pytest.raises(InvalidRequestError):
        await getattr(service, handler)(body)
    assert not node.commands.calls


async def test_the_supervisors_error_is_the_callers(node: Node, service: MaintenanceService) -> None:
    node.commands.error = ConflictError("a core update is running")
    with pytest.raises(ConflictError, match="a core update is running"):
        await service.update(b"")
    assert node.refreshes == 0
