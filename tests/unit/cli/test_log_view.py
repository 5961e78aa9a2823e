"""Which lines of the log are shown, and how."""

from __future__ import annotations

import datetime

import pytest

from pgnode.cli.log_view import WantedLines, as_object, as_text, lines_from_bus, lines_of
from pgnode.cli.rows import Tone
from pgnode.supervisor.host.recent_lines import LogLine

LINES = [
    LogLine(1, 10.0, "supervisor", 812, "info", "it works"),
    LogLine(2, 20.0, "core", 0, "info", "from 192.0.2.1 rejected"),
    LogLine(3, 30.0, "core", 0, "warning", "[Warning] slow"),
    LogLine(4, 40.0, "rest", 51, "error", "worker"),
    LogLine(5, 0.0, "core", 0, "debug", "of the bus"),
]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (WantedLines(), [1, 2, 3, 4, 5]),
        (WantedLines(core=True), [2, 3, 5]),
        (WantedLines(core=False), [1, 4]),
        (WantedLines(level="warning"), [3, 4]),
        (WantedLines(since=30.0), [3, 4, 5]),
        (WantedLines(text="w"), [1, 3, 4]),
        (WantedLines(core=True, level="info", since=20.0, text="192"), [2]),
    ],
)
def test_what_is_wanted_is_shown(wanted: WantedLines, numbers: list[int]) -> None:
    assert [line.number for line in LINES if wanted.has(line)] == numbers


def test_of_an_odd_answer_what_can_be_read_is_read() -> None:
    lines = [line.encode() for line in LINES]
    assert lines_of({"lines": [*lines, 3, [1], ["x", 1, "", 0, "", ""]]}) == LINES
    odd: tuple[object, ...] = (None, [], {}, {"lines": 3})
    assert [lines_of(answer) for answer in odd] == [[]] * 4


def test_lines_of_the_bus() -> None:
    found = list(lines_from_bus([b"2026/11/29 12:00:00 [pgnode] [warning] no room", b"no time \xff"]))
    assert [(line.number, line.source, line.level) for line in found] == [
        *((1, "supervisor", "warning"), (2, "supervisor", "info"))
    ]
    assert found[0].text == "no room"
    noon = datetime.datetime(2026, 11, 29, 12).astimezone().timestamp()
    assert [line.at for line in found] == [noon, 0.0]


def test_how_they_are_shown() -> None:
    text, tone = as_text(LINES[0])
    assert (text[:18], text[37:], tone) == ("supervisor[812]   ", " [info] it works", Tone.PLAIN)
    assert as_text(LINES[2]) == ("core              [Warning] slow", Tone.WARN)
    said = {"at": None, "source": "core", "pid": None, "level": "debug", "text": "of the bus"}
    assert as_object(LINES[4]) == said
