"""A reason that comes again and again is said at growing intervals."""

from __future__ import annotations

import itertools

from structlog.testing import capture_logs

from pgnode.supervisor.lifecycle.refusals import LONGEST_PAUSE_SECONDS, RefusalLog, RepeatedReason
from pgnode.testing.clock import ManualClock


def test_one_reason_every_ten_seconds_for_a_day() -> None:
    repeated = RepeatedReason()
    said = [now for now in range(0, 86_400, 10) if repeated.came("port 1 is in use", float(now))]
    assert said[:4] == [0, 60, 180, 420]
    assert len(said) < 15
    assert repeated.times == 8640
    assert all(later - earlier <= LONGEST_PAUSE_SECONDS for earlier, later in itertools.pairwise(said))


def test_another_reason_is_said_at_once() -> None:
    repeated = RepeatedReason()
    assert [repeated.came(reason, 0.0) for reason in ("a", "b", "b", "a")] == [True, True, False, True]


def test_the_log() -> None:
    refusals = RefusalLog(ManualClock())
    with capture_logs() as logs:
        refusals.refused("a")
        refusals.refused("a")
        refusals.succeeded()
        refusals.refused("a")
    assert [(entry["reason"], entry["times"]) for entry in logs] == [("a", 1), ("a", 1)]
    assert "RefusalLog" in repr(RefusalLog())
