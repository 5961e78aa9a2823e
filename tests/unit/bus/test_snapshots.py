"""What snapshots hold and how they are announced, as bytes and back."""

from __future__ import annotations

import json

import pytest

from pgnode.bus.snapshots import (
    INLINE_BYTES,
    Announcement,
    NodeStatus,
    Polled,
    Snapshot,
    decode_announcement,
    encode_announcement,
)
from pgnode.bus.state import WITH_CORE, State

STATUS = NodeStatus(State.LINGERING, False, "26.10.10", "0.6.0", "no answer", 3, starts={"hot change": 2})


def test_the_status_comes_back_as_it_was() -> None:
    found = NodeStatus.decode(STATUS.encode())
    assert found == STATUS
    assert found.state in WITH_CORE


def test_a_state_that_is_not_known_is_no_status() -> None:
    body = json.dumps({**json.loads(STATUS.encode()), "state": "dreaming"}).encode()
    with pytest.raises(ValueError, match="dreaming"):
        NodeStatus.decode(body)
    with pytest.raises(TypeError):
        NodeStatus.decode(b'{"state": "idle"}')


def test_the_age_of_a_reading_goes_on_since_it_was_sent() -> None:
    polled = Polled(age_ms=500, interval_ms=5_000, error="", sent_at_ms=1_000)
    assert Polled.decode(polled.encode()) == polled
    assert polled.age_seconds(3_000) == 2.5
    assert polled.age_seconds(0) == 0.5, "a clock that was set back"
    assert Polled(age_ms=None, interval_ms=1, error="").age_seconds(0) is None
    assert Polled(age_ms=500, interval_ms=1, error="").age_seconds(9_000) == 0.5, "the time of sending is not known"


@pytest.mark.parametrize(("size", "inline"), [(0, True), (INLINE_BYTES, True), (INLINE_BYTES + 1, False)])
def test_small_bodies_come_with_their_announcement(size: int, inline: bool) -> None:
    body = b"\n" * size
    found = decode_announcement(encode_announcement(Snapshot("system", 7, 42, body)))
    assert found == Announcement("system", 7, 42, body if inline else None)


@pytest.mark.parametrize("data", [b"", b"system", b"system 1", b"system x 1", b"system 1 2 3", b"\xff 1 2"])
def test_what_is_no_announcement(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of several
        decode_announcement(data)


@pytest.mark.parametrize(
    ("age_ms", "sent_at_ms", "now_ms", "seconds"),
    [
        (None, 1000, 5000, None),
        (200, 1000, 5000, 4.2),
        (200, 5000, 1000, 0.2),  # the store's clock was set back
        (200, 0, 5000, 0.2),  # it was not known
    ],
)
def test_the_age_of_a_reading_by_the_stores_clock(
    age_ms: int | None, sent_at_ms: int, now_ms: float, seconds: float | None
) -> None:
    assert Polled(age_ms, 5000, "", sent_at_ms=sent_at_ms).age_seconds(now_ms) == seconds
