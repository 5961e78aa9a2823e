"""Keys of a terminal, which is left as it was found."""

from __future__ import annotations

import os
import signal
import termios
import threading
from collections.abc import Iterator

import pytest

from pgnode.cli.terminal import EndedBySignal, keys_of


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The end of whoever looks, and the end of the command."""
    ends = os.openpty()
    yield ends
    for end in ends:
        os.close(end)


def modes(terminal: tuple[int, int]) -> list[object]:
    return list(termios.tcgetattr(terminal[1]))


def test_keys_come_one_by_one(terminal: tuple[int, int]) -> None:
    before = modes(terminal)
    with keys_of(terminal[1]) as keys:
        assert not int(str(modes(terminal)[3])) & (termios.ICANON | termios.ECHO)
        os.write(terminal[0], b"u\t")
        assert [keys.wait(30), keys.wait(30)] == ["u", "\t"]
        os.write(terminal[0], b"\x1b[A")
        assert keys.wait(30) == "", "an arrow"
        os.write(terminal[0], b"\x1b")
        assert keys.wait(30) == "\x1b"
        assert keys.wait(0) == ""
        assert repr(keys) == f"Keys({terminal[1]})"
    assert modes(terminal) == before
    keys.wake()


def test_it_is_woken_by_threads_and_by_another_size(terminal: tuple[int, int]) -> None:
    with keys_of(terminal[1]) as keys:
        thread = threading.Thread(target=keys.wake)
        thread.start()
        assert keys.wait(30) == ""
        thread.join()
        signal.raise_signal(signal.SIGWINCH)
        assert keys.wait(30) == ""


def test_a_terminal_that_has_gone_ends_it() -> None:
    master, slave = os.openpty()
    with keys_of(slave) as keys:
        os.close(master)
        assert keys.wait(30) == "q"
    os.close(slave)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_it_leave_the_terminal_as_it_was(terminal: tuple[int, int], number: signal.Signals) -> None:
    before, handler = modes(terminal), signal.getsignal(number)
    with pytest.raises(EndedBySignal) as ended, keys_of(terminal[1]):
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert modes(terminal) == before
    assert signal.getsignal(number) is handler


def test_while_it_is_stopped_the_shell_has_the_terminal(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = modes(terminal), list[object]()

    def stop(_pid: int, number: signal.Signals) -> None:
        seen.append((number, modes(terminal) == before))

    monkeypatch.setattr(os, "kill", stop)
    with keys_of(terminal[1], lambda: seen.append("left"), lambda: seen.append("entered")) as keys:
        signal.raise_signal(signal.SIGTSTP)
        assert keys.wait(30) == "", "it is drawn again"
        assert modes(terminal) != before
    assert seen == ["left", (signal.SIGSTOP, True), "entered"]
