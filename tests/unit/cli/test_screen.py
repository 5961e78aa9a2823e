"""Rows on a terminal, and without one."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from pgnode.cli.rows import Row, Tone
from pgnode.cli.screen import Screen


def screen(*, colours: bool, width: int = 80) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(
        Console(file=out, force_terminal=colours, width=width, color_system="standard" if colours else None)
    ), out


def test_rows_are_wrapped_under_their_text() -> None:
    shown, out = screen(colours=False)
    shown.rows([Row("because", "word " * 30, Tone.BAD), Row("", "more"), Row("empty", "")])
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("because   word word")
    assert lines[1].startswith("          word")
    assert all(len(line) <= 80 for line in lines)
    assert lines[-2:] == ["          more", "empty     "]


def test_a_label_that_is_long_is_still_apart_from_its_text() -> None:
    shown, out = screen(colours=False)
    shown.rows([Row("connections", "12")])
    assert out.getvalue() == "connections 12\n"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for colours in (True, False):
        shown, out = screen(colours=colours)
        shown.head("pgnode · ", "down", " · x", Tone.BAD)
        shown.line("ok", Tone.GOOD)
        assert ("\x1b[" in out.getvalue()) is colours
        assert "down" in out.getvalue()
    assert repr(shown) == "Screen(80 columns)"


def test_what_comes_from_outside_cannot_move_the_cursor() -> None:
    shown, out = screen(colours=False)
    shown.rows([Row("users", "alice\x1b[2J\nbob")])
    assert out.getvalue() == "users     alice\\x1b[2J\\nbob\n"


def test_json_is_not_wrapped() -> None:
    shown, out = screen(colours=False, width=40)
    shown.json({"text": "word " * 50})
    assert json.loads(out.getvalue()) == {"text": "word " * 50}
