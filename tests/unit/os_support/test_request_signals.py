"""Signals that ask a supervisor for something end no other process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from pgnode.os_support.request_signals import (
    REQUESTS,
    ended_by_request,
    kept_from_children,
)

#: Says when it is there, and ends well when its input does. Whoever runs the tests may have one of the signals ignored (nohup).
DEFAULTS = "; ".join(f"signal.signal({int(number)}, signal.SIG_DFL)" for number in REQUESTS)
WAITS = f"import signal, sys; {DEFAULTS}; print('there', flush=True); sys.stdin.read()"


def start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process


def test_a_child_outlives_all_of_them_and_ends_by_others() -> None:
    with kept_from_children():
        processes = [start(), start()]
    for process in processes:
        for number in REQUESTS:
            process.send_signal(number)
    first, second = processes
    first.communicate(timeout=30)
    assert first.returncode == 0
    second.terminate()
    second.communicate(timeout=30)
    assert second.returncode == -signal.SIGTERM


@pytest.mark.parametrize("number", REQUESTS)
def test_another_child_is_ended_and_that_is_known(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert ended_by_request(process.returncode)
    assert not any(ended_by_request(code) for code in (0, 1, int(number), -signal.SIGTERM, -signal.SIGKILL))


def test_what_comes_meanwhile_is_handled_afterwards() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: came.append(number))
    try:
        with kept_from_children():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
            assert came == []
        assert came == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_mask_of_before_is_back_after_an_error() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(FileNotFoundError), kept_from_children():
        subprocess.Popen(["/no/such/program"])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_process_may_block_them_for_itself() -> None:
    # Not a fork of this one: libraries that are loaded here may have threads in it, which block nothing.
    code = (
        "import os, signal; from pgnode.os_support.request_signals import keep_from_this_process; "
        "keep_from_this_process(); os.kill(os.getpid(), signal.SIGUSR2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
