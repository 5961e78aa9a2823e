"""Many rejected users are a few lines of log."""

from __future__ import annotations

import pytest

from pgnode.supervisor.users.rejection_log import RejectionLog


def test_the_first_ones_of_a_minute_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    now = 10.0
    log = RejectionLog(lambda: now)
    for number in range(20_000):
        log.tell(f"u{number}", "no", number + 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert "u4" in lines[4]
    assert "pgnode users --failed" in lines[5]
    now = 80.0
    log.tell("later", "no", 20_001)
    assert "later" in capsys.readouterr().out
    now = 5.0
    log.tell("with a clock that was set back", "no", 20_002)
    assert "set back" in capsys.readouterr().out
