"""The insides of a core's process, without the process: what it does in which order. Real ones are in test_embedded.py."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pgnode.xray.process import embedded_main


class Orders:
    """The reading end of the pipe, with what was sent."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)

    def close(self) -> None:
        self.closed = True

    def recv_bytes(self) -> bytes:
        if not self._messages:
            raise EOFError
        return self._messages.pop(0)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What would have been done to this process, in order."""
    calls: list[tuple[object, ...]] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *arguments: calls.append((name, *arguments))

    # The module's own view of os and signal: pytest itself needs the real ones.
    harmless = {name: note(name) for name in ("setsid", "umask", "chdir", "dup2")}
    monkeypatch.setattr(embedded_main, "os", SimpleNamespace(**(vars(os) | harmless)))
    monkeypatch.setattr(embedded_main, "signal", SimpleNamespace(**(vars(signal) | {"signal": note("signal")})))
    monkeypatch.setattr(embedded_main, "_open_descriptors", list)
    library = SimpleNamespace(startFromJSON=lambda config: calls.append(("core", config)))
    monkeypatch.setitem(sys.modules, "xray", library)
    return calls


def test_it_becomes_the_core_of_its_config(done: list[tuple[object, ...]], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    embedded_main.run(Orders(b"{}", bytes(fifo)))
    assert done[0] == ("setsid",)
    assert ("signal", signal.SIGTERM, signal.SIG_DFL) in done
    assert ("umask", 0o077) in done
    assert [call[2] for call in done if call[0] == "dup2"] == [0, 1, 2]
    assert done[-2:] == [("chdir", "/"), ("core", "{}")]


def test_nothing_is_done_when_no_config_comes(done: list[tuple[object, ...]]) -> None:
    embedded_main.run(Orders(b"{}"))
    assert "core" not in {call[0] for call in done}


def test_the_log_takes_a_burst_and_never_blocks(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    descriptor = embedded_main.open_log(fifo)
    try:
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK
        # Nobody reads, and it takes more than the 64 KiB that a pipe has by itself.
        assert os.write(descriptor, bytes(8 * 1024 * 1024)) > 65536
    finally:
        os.close(descriptor)


def test_all_but_the_three_standard_descriptors_are_found() -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        found = embedded_main._open_descriptors()
        assert descriptor in found
        assert not {0, 1, 2} & set(found)
    finally:
        os.close(descriptor)
