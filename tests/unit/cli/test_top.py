"""``pgnode top``, on a terminal of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from pgnode.cli import main, top
from pgnode.cli.target import Named, Target
from pgnode.cli.terminal import EndedBySignal
from pgnode.cli.top import show_top
from pgnode.cli.top_model import Sample
from pgnode.errors import NotRunningError, OperatorError
from pgnode.settings import load
from tests.unit.cli.seen_node import FACTS
from tests.unit.cli.test_top_model import CORE, LIVE

SCREEN_ON, SCREEN_OFF, CURSOR_ON = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


class Looker:
    """Sees something else at each look."""

    def __init__(self, target: Target) -> None:
        self.looks = 0

    def look(self) -> Sample:
        self.looks += 1
        return Sample(float(self.looks), FACTS, replace(LIVE, reading=self.looks, calls=100 + self.looks), CORE)


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "find_target", lambda _named: Target(load(state_dir=str(tmp_path)), 812))
    monkeypatch.setattr(top, "Looker", Looker)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of whoever presses keys; the other one is this process's standard input."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        yield ours
    os.close(ours)


def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})


def text(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def once(condition: Callable[[], bool], then: Callable[[], object]) -> threading.Thread:
    """Do something in a thread when a condition holds."""
    stop = threading.Event()

    def wait() -> None:
        until = time.monotonic() + 60
        while not condition() and time.monotonic() < until:
            stop.wait(0.01)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_it_draws_until_a_key_ends_it(terminal: int) -> None:
    screen, before = console(), termios.tcgetattr(sys.stdin.fileno())
    pressing = once(lambda: "up▼" in text(screen), lambda: os.write(terminal, b"q"))
    sorting = once(lambda: "down▼" in text(screen), lambda: os.write(terminal, b"u"))
    assert show_top(Named(), interval_seconds=0.01, console=screen) == 0
    pressing.join()
    sorting.join()
    shown = text(screen)
    assert "alice" in shown
    assert shown.index(SCREEN_ON) < shown.index(SCREEN_OFF)
    assert shown.rindex(CURSOR_ON) > shown.rindex("\x1b[?25l")
    assert termios.tcgetattr(sys.stdin.fileno()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was(terminal: int, number: signal.Signals) -> None:
    screen, before = console(), termios.tcgetattr(sys.stdin.fileno())
    main_thread = threading.get_ident()
    sending = once(lambda: "alice" in text(screen), lambda: signal.pthread_kill(main_thread, number))
    if number is signal.SIGINT:
        assert show_top(Named(), interval_seconds=0.01, console=screen) == 0
    else:
        with pytest.raises(EndedBySignal):
            show_top(Named(), interval_seconds=0.01, console=screen)
    sending.join()
    assert text(screen).rstrip().endswith(CURSOR_ON) or SCREEN_OFF in text(screen)
    assert termios.tcgetattr(sys.stdin.fileno()) == before


def test_without_a_terminal_it_says_what_to_do() -> None:
    with pytest.raises(OperatorError, match="pgnode top --once prints one look"):
        show_top(Named(), console=Console(file=io.StringIO()))
    result: Result = CliRunner().invoke(main, ["top"])
    assert (result.exit_code, "--once" in result.output) == (1, True)


def test_one_look_is_printed() -> None:
    screen = Console(file=io.StringIO(), width=80)
    assert show_top(Named(), once=True, interval_seconds=0.0, console=screen) == 0
    lines = text(screen).splitlines()
    assert lines[0].startswith("pgnode 0.6.0 · running")
    assert lines[-1].startswith("carol")
    assert not [line for line in lines if "\x1b" in line or "quit" in line]


def test_one_look_is_printed_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_top(Named(), json_wanted=True, interval_seconds=0.0, console=Console(file=io.StringIO())) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["because"], said["live"]["reading"]) == ("running", [], 2)
    assert said["core"]["memory_bytes"] == CORE.memory_bytes


def test_a_look_at_a_node_that_hangs_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = replace(FACTS, report=None, silence="it hangs", hangs=True)
    monkeypatch.setattr(Looker, "look", lambda _self: Sample(1.0, hung, None, None))
    screen = Console(file=io.StringIO(), width=80)
    assert show_top(Named(), once=True, console=screen) == 4
    assert "hung" in text(screen)


def test_a_node_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "find_target", lambda _named: Target(load(state_dir=str(tmp_path)), None))
    with pytest.raises(NotRunningError, match="pgnode status shows what it stored"):
        show_top(Named())
