"""A worker meets supervisors of its own and of other versions, and takes the keys that it has none of."""

from __future__ import annotations

import uuid
from hashlib import sha256

import pytest

from pgnode.api.auth import CURRENT, PREVIOUS, ApiKeys
from pgnode.bus.protocol import PROTOCOL, Hello
from pgnode.worker.meeting import Meeting
from tests.support.polling import eventually

OLD, NEW = str(uuid.uuid4()), str(uuid.uuid4())


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def test_another_protocol_is_refused_until_it_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ApiKeys(NEW)
    meeting = Meeting(keys, takes_keys=False, version="1.0")
    for _ in range(2):
        meeting.met(Hello(PROTOCOL + 1, "2.0"))
        assert keys.refusal is not None
        assert keys.refusal.status == 503
        assert "update the worker" in keys.refusal.text
    assert capsys.readouterr().out.count("this worker serves nobody") == 1
    assert "update the worker" in repr(meeting)
    meeting.met(Hello(version="1.0"))
    assert keys.refusal is None
    assert "this worker serves again" in capsys.readouterr().out
    assert repr(meeting) == "Meeting(well)"


def test_another_version_is_told_and_served(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ApiKeys(NEW)
    meeting = Meeting(keys, takes_keys=False, version="1.0")
    meeting.met(Hello(version="1.0"))
    assert not capsys.readouterr().out
    meeting.met(Hello(version="1.1", key=digest(OLD)))
    assert keys.refusal is None
    assert "the supervisor is of another version" in capsys.readouterr().out
    assert keys.find({b"x-api-key": NEW.encode()}) == CURRENT, "its own key counts"
    meeting.close()


async def test_keys_come_by_their_digests_and_the_previous_one_ends_by_this_hosts_timer() -> None:
    keys = ApiKeys(None)
    meeting = Meeting(keys, takes_keys=True)
    meeting.met(Hello(key=digest(OLD)))
    assert keys.find({b"x-api-key": OLD.encode()}) == CURRENT
    meeting.met(Hello(key=digest(NEW), previous=digest(OLD), previous_ms=60_000))
    assert keys.find({b"x-api-key": OLD.encode()}) == PREVIOUS
    assert keys.find({b"x-api-key": NEW.encode()}) == CURRENT
    meeting.met(Hello(key=digest(NEW), previous=digest(OLD), previous_ms=10))
    await eventually(lambda: not keys.find({b"x-api-key": OLD.encode()}), "the previous one ends")
    assert keys.find({b"x-api-key": NEW.encode()}) == CURRENT
    meeting.met(Hello(key=digest(NEW), previous=digest(OLD), previous_ms=60_000))
    meeting.close()
