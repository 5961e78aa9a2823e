"""Processes that are forked from this one at its very beginning, and become programs of Python later: they share its memory.

What was imported before the fork is there once for all of them, as far as none writes into it. A prepared process waits until it
is told what to become, and never outlives the process that made it. Where there is none, or something fails on the way, the
program is started as any other is: nothing but memory and time depends on this.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgnode.os_support import oom_score, pdeath, shown_words
from pgnode.os_support.limits import allow_many_files
from pgnode.os_support.request_signals import REQUESTS

#: Where this is set, Python treats warnings otherwise than in the programs: their environment lacks it.
_UNLIKE: Final = "PYTHONWARNINGS"

#: Descriptors that one message carries at most (SCM_MAX_FD of the kernel).
_DESCRIPTORS_MAX: Final = 253

_STANDARD: Final = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """One that waits."""

    pid: int
    channel: socket.socket

    def become(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: int,
        descriptors: Sequence[int] = (),
        points: int = oom_score.EXPENDABLE_POINTS,
    ) -> None:
        """Tell it what to become; from then on it is a process like one that was started with :func:`pdeath.command`.

        Args:
            command: ``python -m MODULE …``.
            environment: Its environment.
            output: Where standard output and error go.
            descriptors: What else it has, under the same numbers.
            points: By how much sooner than this process it is ended when memory runs out.

        Raises:
            OSError: It has ended, or there is no room for the message.
        """
        order = {
            "words": pdeath.command(command, points),
            "environment": dict(environment),
            "descriptors": list(descriptors),
            "oom_score_adj": _own_score(),
        }
        try:
            with self.channel, os.fdopen(os.memfd_create("pgnode-order"), "wb") as file:
                file.write(json.dumps(order).encode())
                file.flush()
                socket.send_fds(self.channel, [b"."], [file.fileno(), output, *descriptors])
        except OSError:
            self.end()
            raise

    def end(self) -> None:
        """End it, as one for which there is nothing to do."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@dataclass(frozen=True, slots=True)
class Program:
    """What this process, which was prepared, has to become."""

    words: Sequence[str]
    environment: Mapping[str, str]

    def run(self) -> int:
        """Become it.

        Returns:
            The exit code, where the program does not end the process by itself.
        """
        try:
            shown_words.show(self.words, self.environment)
        except (OSError, ValueError, LookupError):
            # Nobody could tell what this process is.
            os.execve(self.words[0], list(self.words), dict(self.environment))  # noqa: S606 - the supervisor's own command line
        # python -m pgnode.os_support.pdeath PARENT POINTS python -m MODULE …
        _, _, _, _, points, _, _, module, *_ = self.words
        oom_score.raise_own(int(points))
        sys.orig_argv[:] = self.words
        sys.argv[:] = self.words[7:]
        if not sys.flags.safe_path:
            # As with -m, however this process was started.
            sys.path[0] = os.getcwd()  # noqa: PTH109 - a string
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0


#: Those that wait.
_waiting: list[Prepared] = []


def prepare(count: int, environment: Mapping[str, str]) -> Program | None:
    """Fork processes that wait. Call it when all is imported that they have in common, and before there is another thread.

    Args:
        count: How many.
        environment: This process's environment.

    Returns:
        None in this process. In each of the others, when it is told what to become: that.
    """
    if _UNLIKE in environment or threading.active_count() > 1:
        return None
    # The collector writes into what it looks at.
    gc.freeze()
    parent = os.getpid()
    for _ in range(count):
        try:
            near, far = socket.socketpair()
        except OSError:
            return None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
        try:
            pid = os.fork()
        except OSError:
            near.close()
            far.close()
            return None
        finally:
            # In the child they stay blocked.
            if os.getpid() == parent:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid == 0:
            # Before its number is another's.
            near.close()
            return _wait(far, parent)
        far.close()
        _waiting.append(Prepared(pid, near))
    return None


def take() -> Prepared | None:
    """Take one that waits, if there is one."""
    return _waiting.pop(0) if _waiting else None


def pids() -> frozenset[int]:
    """Return the pids of those that wait."""
    return frozenset(one.pid for one in _waiting)


def dismiss() -> None:
    """End those for which there is nothing to do."""
    while (one := take()) is not None:
        one.end()


# --- in the process that waits --------------------------------------------------------------------------------------


def _wait(channel: socket.socket, parent: int) -> Program:
    """Wait until it is known what to become; end with the parent, and when there is nothing to do."""
    _waiting.clear()
    # And nothing else, whatever the parent holds back at its beginning.
    signal.pthread_sigmask(signal.SIG_SETMASK, REQUESTS)
    os.setsid()
    pdeath.die_with_parent(parent=parent)
    _close_all_but(channel.fileno())
    data, numbers, _, _ = socket.recv_fds(channel, 1, _DESCRIPTORS_MAX)
    if not data:
        os._exit(0)
    channel.close()
    with open(numbers[0], "rb") as file:
        file.seek(0)
        order = json.loads(file.read())
    allow_many_files()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    wanted = dict(zip(order["descriptors"], numbers[2:], strict=True))
    _place({0: nowhere, 1: numbers[1], 2: numbers[1], **wanted})
    # What this process would have had from its parent, had it been forked now.
    if order["oom_score_adj"] is not None:
        with contextlib.suppress(OSError):
            oom_score.write_score("self", order["oom_score_adj"])
    os.umask(0o077)
    os.environ.clear()
    os.environ.update(order["environment"])
    return Program(order["words"], order["environment"])


def _own_score() -> int | None:
    try:
        return oom_score.read_score()
    except (OSError, ValueError):
        return None


def _close_all_but(kept: int) -> None:
    """Close what only the parent has use for. Standard output and error stay until there are others."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number >= _STANDARD and number != kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _place(wanted: Mapping[int, int]) -> None:
    """Give descriptors the numbers that they shall have; what held these numbers is gone, and so are all others."""
    # First out of the way of all of them.
    beyond = max(*wanted, *wanted.values()) + 1
    apart = {number: fcntl.fcntl(held, fcntl.F_DUPFD_CLOEXEC, beyond) for number, held in wanted.items()}
    for number, copy in apart.items():
        os.dup2(copy, number, inheritable=True)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in wanted:
            with contextlib.suppress(OSError):
                os.close(number)
