"""The one form of log lines: as text, as JSON, and read again."""

from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.log_lines import PRIORITIES, Entry, json_line, prefixed, read_line, text_lines

ENTRY = Entry(1_795_990_425.1239, "warning", "rest", 12, "no room", {"free": 3, "path": "/a b", "because": None})


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.usefixtures("_utc")
def test_text_says_when_who_and_what() -> None:
    assert list(text_lines(ENTRY)) == [
        "2026/11/29 22:13:45 [warning] rest[12]: no room because=None free=3 path='/a b'"
    ]
    [plain] = text_lines(ENTRY, timestamp=False)
    assert plain.startswith("[warning] rest[12]: no room")
    [coloured] = text_lines(ENTRY, colours=True)
    assert "\x1b[33mwarning\x1b[0m" in coloured
    assert "\x1b[1mno room\x1b[0m because=None" in coloured


def test_a_traceback_is_lines_of_its_own_each_with_the_priority() -> None:
    entry = Entry(0.0, "error", "grpc", 1, "call failed", {}, "Traceback (most recent call last):\nKeyError: 1")
    assert list(prefixed(text_lines(entry, timestamp=False), entry.level)) == [
        "<3>[error] grpc[1]: call failed",
        "<3>Traceback (most recent call last):",
        "<3>KeyError: 1",
    ]


@pytest.mark.parametrize(
    ("level", "number"), [("critical", 2), ("error", 3), ("warning", 4), ("info", 6), ("debug", 7), ("new", 6)]
)
def test_priorities_are_those_of_the_journal(level: str, number: int) -> None:
    assert list(prefixed(iter(["x"]), level)) == [f"<{number}>x"]


def test_json_has_what_is_promised() -> None:
    line = json_line(ENTRY)
    assert line.isascii()
    assert json.loads(line) == {
        "time": "2026-11-29T22:13:45.123Z",
        "level": "warning",
        "process": "rest",
        "pid": 12,
        "message": "no room",
        "fields": {"free": 3, "path": "/a b", "because": None},
    }
    bare = json.loads(json_line(Entry(0.0, "info", "core", 1, "x", {}, "trace")))
    assert "fields" not in bare
    assert bare["traceback"] == "trace"


def test_a_number_that_json_does_not_know_is_a_text() -> None:
    line = json_line(Entry(0.0, "info", "core", 1, "x", {"a": float("nan"), "b": float("inf"), "c": [1]}))
    assert json.loads(line, parse_constant=pytest.fail)["fields"] == {
        "a": "nan",
        "b": "inf",
        "c": "[1]",
    }


@given(
    st.sampled_from(sorted(PRIORITIES)),
    st.text(max_size=50),
    st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text()),
)
def test_whatever_is_said_is_one_line_and_is_read_again(level: str, message: str, fields: dict[str, object]) -> None:
    entry = Entry(1.5, level, "rest", 7, message, fields, "a\nb")
    line = json_line(entry)
    assert len(line.splitlines()) == 1
    found = read_line(line, "other", 1, 0.0)
    assert (found.at, found.level, found.process, found.pid, found.traceback) == (1.5, level, "rest", 7, "a\nb")
    assert found.message.isprintable()
    assert "".join(found.fields).isprintable()
    if message.isprintable():
        assert found.message == message


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("12:M 29 Nov 2026 22:13:43.100 # WARNING no memory", "warning", "WARNING no memory"),
        ("12:M 29 Nov 2026 22:13:43.100 * Ready", "info", "Ready"),
        ("12:C 29 Nov 2026 22:13:43.100 . detail", "debug", "detail"),
        ("E0000 00:00:1795990425.100 4711 chttp2.cc:10] it broke", "error", "chttp2.cc:10] it broke"),
        ("W20261129 22:13:43.1 4711 x.cc:1] hm", "warning", "x.cc:1] hm"),
        ("Traceback (most recent call last):", "error", "Traceback (most recent call last):"),
        ("anything else\x1b[2J", "info", "anything else\\x1b[2J"),
        ('{"time": "x", "level": "info"}', "info", '{"time": "x", "level": "info"}'),
        (
            '{"time": "2026-11-29T22:13:45.123Z", "level": "loud", "process": "a", "pid": 1, "message": "m"}',
            "info",
            None,
        ),
        ('{"time": ' + "[" * 100_000, "info", None),
        ('{"time": "', "info", '{"time": "'),
    ],
)
def test_what_others_print_is_read_by_its_looks(line: str, level: str, message: str | None) -> None:
    found = read_line(line, "valkey", 12, 5.0)
    assert (found.at, found.level, found.process, found.pid) == (5.0, level, "valkey", 12)
    assert found.fields == {}
    if message is not None:
        assert found.message == message
    assert os.linesep not in found.message
