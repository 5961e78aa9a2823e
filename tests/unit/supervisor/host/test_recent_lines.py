"""The last lines of the log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.os_support.log_lines import Entry
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.host.recent_lines import HANDED_ON, LogLine, RecentLines


def made(name: str = "one", left: dict[str, Any] | None = None, **limits: int) -> RecentLines:
    return RecentLines(LogRing(10_000), name, left, **limits)


def core(lines: RecentLines, text: str, at: float = 7.0) -> None:
    lines.ring.put(text.encode(), at, text.count("\n") + 1)


def entry(message: str) -> Entry:
    return Entry(7.0, "info", "supervisor", 812, message)


def texts(lines: RecentLines, after: int = 0) -> list[str]:
    return [line.text for line in lines.after(after)]


def test_lines_come_in_their_order() -> None:
    lines = made()
    lines.node(entry("one"))
    core(lines, "two")
    lines.node(Entry(6.0, "critical", "rest", 51, "three", {"of": 3}, "Traceback:\nOSError"))
    assert [line.number for line in lines.after(0)] == [1, 2, 3, 4, 5]
    assert texts(lines, 1) == ["two", "three of=3", "Traceback:", "OSError"]
    assert [line.encode()[4] for line in lines.after(0)] == ["info", "info", "error", "error", "error"]
    assert [(line.at, line.source, line.pid) for line in lines.after(0)[1:3]] == [(7.0, "core", 0), (6.0, "rest", 51)]
    assert repr(lines) == "RecentLines(LogRing(1 lines, 3 bytes), 4 of the node)"
    assert LogLine.decode(lines.after(0)[0].encode()) == lines.after(0)[0]


def test_a_talkative_core_does_not_push_out_the_nodes_own() -> None:
    lines = made(kept=3, characters=1000)
    lines.node(entry("first"))
    for number in range(50):
        core(lines, str(number))
    assert texts(lines) == ["first", "47", "48", "49"]


def test_long_lines_are_bounded_together() -> None:
    lines = made(kept=100, characters=10)
    for text in ("aaaa", "bbbb", "cccc"):
        core(lines, text)
    assert texts(lines) == ["bbbb", "cccc"]
    core(lines, "d" * 11)
    assert texts(lines) == []


def test_the_next_supervisor_goes_on_with_them() -> None:
    lines = made()
    for number in range(HANDED_ON + 10):
        core(lines, f"core {number}", 7.0 + number)
    lines.node(entry("mine"))
    lines.ring.put(b"[pgnode] mine", 600.0, 1, of_core=False)
    left = json.loads(json.dumps(lines.left()))
    other = made("two", left)
    assert (other.name, len(other.after(0))) == ("one", HANDED_ON + 1)
    assert other.after(0)[-1] == lines.after(0)[-1]
    assert other.ring.last(2) == [b"core 509", b"[pgnode] mine"], "viewers see it, too"
    core(other, "new")
    assert [line.text for line in other.after(HANDED_ON + 12)] == ["new"]


def test_what_a_version_before_left_is_taken() -> None:
    left = {
        "name": "old",
        "number": 9,
        "lines": [[8, 7.0, "core", 0, "info", "a line"], [9, 7.0, "rest", 5, "info", "mine"]],
    }
    lines = made("two", left)
    assert texts(lines) == ["a line", "mine"]
    core(lines, "new")
    assert [(line.number, line.text) for line in lines.after(9)] == [(10, "new")]


@pytest.mark.parametrize(
    "left", [{}, {"lines": 3}, {"name": "x", "number": 1, "lines": [[1]]}, {"name": "x", "number": "y", "lines": []}]
)
def test_what_another_version_left_is_left_out_where_it_is_odd(left: dict[str, Any]) -> None:
    lines = made("two", left)
    assert (lines.name, lines.after(0)) == ("two", [])
