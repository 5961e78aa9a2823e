"""What comes from outside stands in a log as one short line."""

from __future__ import annotations

import io
import json
import sys

from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.log_text import (
    TRACEBACK_HEAD,
    TRACEBACK_TAIL,
    bound_values,
    obeyed_by_terminals,
    print_traceback,
    printable,
    printable_bytes,
    printable_json,
    printable_lines,
)


@given(st.text(st.characters(), max_size=50))
def test_whatever_comes_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown


def test_what_is_printable_stays() -> None:
    assert printable("Grüße, 用户@demo") == "Grüße, 用户@demo"


def test_what_would_make_a_line_or_move_the_cursor_is_escaped() -> None:
    assert printable("a\nb\x1b[2Jc\x00\ud800\u202e") == "a\\nb\\x1b[2Jc\\x00\\ud800\\u202e"


def test_what_is_too_long_is_cut_and_its_length_told() -> None:
    assert printable("x" * 5_000_000, 8) == "xxxxxxxx… (5,000,000 characters)"


#: Names as somebody may choose them who knows who reads them.
HOSTILE = [
    "\x1b[2J",
    "\x9b31m",
    "a\rb",
    "\u202egnp.exe",
    "\u2066x",
    "\u200f",
    "\u061c",
    "\u2028",
    "\x00",
    "\x7f",
    "\x08",
]


def test_lines_stay_lines_and_each_is_safe() -> None:
    assert printable_lines("all is well") == "all is well"
    for name in HOSTILE:
        first, second = printable_lines(f"one {name}\ntwo").split("\n")
        assert first.isprintable()
        assert second == "two"
    assert printable_lines("x" * 9, 8).startswith("xxxxxxxx… (9")


@given(st.text(st.characters(), max_size=50))
def test_json_says_the_same(text: str) -> None:
    made = json.dumps({text: [text]}, ensure_ascii=False, indent=2)
    safe = printable_json(made)
    assert json.loads(safe) == json.loads(made)
    assert all(line.isprintable() for line in safe.split("\n"))


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_bytes_of_others_have_nothing_that_a_terminal_obeys(text: str) -> None:
    made = printable_bytes(text.encode())
    assert not obeyed_by_terminals(made)
    assert (made == text.encode()) is not obeyed_by_terminals(text.encode())


def test_bytes_that_are_no_text_stay() -> None:
    kept = "ü🇩🇪 通\u200c道".encode()
    assert printable_bytes(b"\xff\t\x1b[m\n" + kept) == b"\xff\t\\x1b[m\n" + kept
    for name in HOSTILE:
        assert obeyed_by_terminals(name.encode())


def test_values_of_an_event_are_bounded_and_numbers_stay() -> None:
    event = bound_values(None, "info", {"event": "a\nb", "count": 3, "on": True, "none": None, "list": ["x" * 3000]})
    assert event["event"] == "a\\nb"
    assert (event["count"], event["on"], event["none"]) == (3, True, None)
    assert event["list"].endswith("… (3,004 characters)")
    kept = object()
    assert bound_values(None, "error", {"event": "short", "exc_info": kept})["exc_info"] is kept


def _printed(error: Exception) -> str:
    stream = io.StringIO()
    try:
        raise error
    except Exception:
        kind, value, trace = sys.exc_info()
        assert kind is not None
        assert value is not None
        print_traceback(stream, (kind, value, trace))
    return stream.getvalue()


def test_a_traceback_has_lines_without_what_moves_a_cursor() -> None:
    shown = _printed(ValueError("bad \x1b[2J value"))
    assert shown.splitlines()[-1] == "ValueError: bad \\x1b[2J value"
    assert "Traceback (most recent call last):" in shown


def test_a_traceback_is_bounded() -> None:
    shown = _printed(ValueError("\n".join(["x" * 999] * 5_000)))
    assert len(shown) < TRACEBACK_HEAD + TRACEBACK_TAIL + 100
    assert "characters left out" in shown
