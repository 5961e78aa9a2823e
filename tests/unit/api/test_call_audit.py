"""Which calls are in the audit trail, over REST; tests/unit/api/grpc/test_handlers.py has those over gRPC."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from pgnode.api.auth import CURRENT, PREVIOUS, ApiKeys
from pgnode.api.call_audit import CALLERS_MAX, CallAudit
from pgnode.api.rest.app import build
from tests.unit.api.fakes import KEY, Call, Node, part
from tests.unit.api.rest.requests import LIMIT_BYTES, USER, keyed

OTHER = "00000000-0000-4000-8000-000000000001"


class Timer:
    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.calls.append((seconds, what))


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def audit(timer: Timer) -> CallAudit:
    return CallAudit(ApiKeys(KEY, OTHER), timer.later, tell_seconds=60.0)


def without_level(lines: list[MutableMapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "log_level"} for line in lines]


def test_after_a_rotation_the_same_name_is_another_key(timer: Timer) -> None:
    keys = ApiKeys(KEY)
    audit = CallAudit(keys, timer.later)
    audit.ended("SyncUser", "change", "192.0.2.1", CURRENT, "OK")
    audit.ended("SyncUser", "change", "192.0.2.1", CURRENT, "OK")
    keys.replace(OTHER, None)
    audit.ended("SyncUser", "change", "192.0.2.1", CURRENT, "OK")
    audit.ended("SyncUser", "change", "192.0.2.2", CURRENT, "OK")
    with capture_logs() as lines:
        audit.tell()
    found = sorted((line["caller"], line["key"], line["SyncUser"]) for line in lines)
    old, new = ApiKeys(KEY).digests[CURRENT], ApiKeys(OTHER).digests[CURRENT]
    assert found == sorted([("192.0.2.1", old, 2), ("192.0.2.1", new, 1), ("192.0.2.2", new, 1)])


def test_starts_and_maintenance_are_told_one_by_one(audit: CallAudit) -> None:
    with capture_logs() as lines:
        audit.ended("Start", "start", "192.0.2.1", CURRENT, "OK")
        audit.ended("core_update", "maintain", "192.0.2.1", PREVIOUS, "CONFLICT")
    first, second = ApiKeys(KEY).digests[CURRENT], ApiKeys(OTHER).digests[CURRENT]
    assert without_level(lines) == [
        {"event": "called", "audit": "call", "method": "Start", "caller": "192.0.2.1", "key": first, "answer": "OK"},
        {
            "event": "called",
            "audit": "call",
            "method": "core_update",
            "caller": "192.0.2.1",
            "key": second,
            "answer": "CONFLICT",
        },
    ]
    assert len(first) == 8
    assert first not in KEY
    assert first != second


def test_changes_are_numbers_told_after_a_time(audit: CallAudit, timer: Timer) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            audit.ended("SyncUser", "change", "192.0.2.1", CURRENT, "OK")
        audit.ended("SyncUsers", "change", "192.0.2.1", CURRENT, "INTERNAL")
        audit.ended("SyncUser", "change", "192.0.2.2", CURRENT, "OK")
        assert lines == []
        assert repr(audit) == "CallAudit(2 callers)"
        [(seconds, tell)] = timer.calls
        tell()
        tell()
    assert seconds == 60.0
    key = ApiKeys(KEY).digests[CURRENT]
    assert without_level(lines) == [
        {
            "event": "changes",
            "audit": "changes",
            "caller": "192.0.2.1",
            "key": key,
            "SyncUser": 3,
            "SyncUsers": 1,
            "failed": 1,
        },
        {"event": "changes", "audit": "changes", "caller": "192.0.2.2", "key": key, "SyncUser": 1},
    ]
    audit.ended("SyncUser", "change", "192.0.2.1", CURRENT, "OK")
    assert len(timer.calls) == 2, "the next one is told in its turn"


def test_no_more_callers_are_told_apart_than_are_bearable(audit: CallAudit) -> None:
    for number in range(CALLERS_MAX + 50):
        audit.ended("SyncUser", "change", f"192.0.2.{number}", CURRENT, "OK")
    with capture_logs() as lines:
        audit.tell()
    assert len(lines) == CALLERS_MAX + 1
    assert (lines[-1]["caller"], lines[-1]["SyncUser"]) == ("others", 50)


async def test_calls_over_rest(audit: CallAudit) -> None:
    node = Node()
    app = build(
        node.service(),
        api_key=KEY,
        max_body_bytes=LIMIT_BYTES,
        body_timeout_seconds=0.05,
        audit=audit,
        drain_seconds=0.01,
    )
    body = {"content_length": str(len(USER)), "content_type": "application/x-protobuf"}
    with capture_logs() as lines:
        await Call("PUT", "/stop", keyed(), []).run(app)
        await Call("PUT", "/user/sync", keyed(**body), [part(USER)]).run(app)
        await Call("GET", "/info", keyed(), []).run(app)
        await Call("GET", "/nowhere", keyed(), []).run(app)
        await Call("PUT", "/stop", {"x-api-key": OTHER}, []).run(app)
        audit.tell()
    assert [(line["audit"], line.get("method"), line.get("SyncUser")) for line in lines] == [
        ("call", "Stop", None),
        ("changes", None, 1),
    ]


async def test_the_time_is_the_loops_own() -> None:
    audit = CallAudit(ApiKeys(KEY), tell_seconds=0.0)
    with capture_logs() as lines:
        audit.ended("SyncUser", "change", "192.0.2.1", CURRENT, "OK")
        from tests.support.polling import eventually

        await eventually(lambda: lines, "it is told")
    assert lines[0]["SyncUser"] == 1
