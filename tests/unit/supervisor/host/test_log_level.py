"""The level of the node's log."""

from __future__ import annotations

from pgnode.supervisor.host.log_level import LogLevel


def test_another_level_is_in_force_until_its_end() -> None:
    now = [100.0]
    level = LogLevel("info", lambda: now[0])
    assert (level.level, level.until, repr(level)) == ("info", None, "LogLevel(info)")
    assert [level.shows(name) for name in ("debug", "info", "error")] == [False, True, True]
    level.change("debug", 60)
    assert (level.shows("debug"), level.until, repr(level)) == (True, 160.0, "LogLevel(debug, usually info)")
    now[0] = 160.0
    assert (level.shows("debug"), level.level, level.until) == (False, "info", None)


def test_without_an_end_it_stays() -> None:
    now = [100.0]
    level = LogLevel("info", lambda: now[0])
    level.change("debug", 60)
    level.change("error")
    now[0] = 1e9
    assert (level.level, level.until, level.shows("warning")) == ("error", None, False)
