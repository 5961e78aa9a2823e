"""What comes from outside stands in a log as one short line."""

from __future__ import annotations

import io
import sys

from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.log_text import TRACEBACK_HEAD, TRACEBACK_TAIL, bound_values, print_traceback, printable


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
