"""Tells the service manager (systemd, or what speaks as it does) how the node is: sd_notify(3) without its library.

A message is a datagram of lines ``NAME=value`` to the socket that NOTIFY_SOCKET names. Nothing is ever waited for: what is not
taken now is sent with the next beat. Children of the node get none of the variables, so nobody else speaks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: What a service manager sets.
_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: Seconds between two beats at most; four fit into the time that the watchdog gives.
BEAT_SECONDS: Final = 10.0
BEATS_IN_TIME: Final = 4

#: Seconds that a start which is not ready asks for, with each beat.
EXTEND_SECONDS: Final = 60

_MICROSECONDS: Final = 1_000_000


class ServiceManager:
    """Belongs to the supervisor's loop.

    Args:
        address: The socket; "" where nobody listens.
        watchdog_seconds: Seconds after which a node that gives no sign of life is ended; 0 for never.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        # An abstract name begins with a zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds
        self._is_ready = False
        #: What was not taken, and what was said last.
        self._owed: list[str] = []
        self._status = ""
        self._failed = False

    def __repr__(self) -> str:
        return f"ServiceManager({self._address!r}, watchdog {self._watchdog_seconds:g} s)"

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Take what the service manager has set.

        Args:
            environment: This process's environment; the variables are taken out of it.

        Returns:
            The service manager; one that listens to nothing where there is none.
        """
        address, microseconds, pid = (environment.pop(name, "") for name in _VARIABLES)
        if not address.startswith(("/", "@")):
            return cls()
        ours = pid in ("", str(os.getpid()))
        seconds = int(microseconds) / _MICROSECONDS if ours and microseconds.isdecimal() else 0.0
        return cls(address, seconds)

    def ready(self) -> None:
        """Say that the node does its work, for the first time or again; the pid is the same after a restart in place."""
        self._is_ready = True
        self._say("READY=1", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Say that the node takes its settings anew, or becomes another version; :meth:`ready` ends that."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the node ends."""
        self._say("STOPPING=1")

    async def keep(self, status: Callable[[], str]) -> None:
        """Give signs of life, and say how the node is, until cancelled.

        Args:
            status: Says it, in half a line.
        """
        in_time = self._watchdog_seconds / BEATS_IN_TIME if self._watchdog_seconds else BEAT_SECONDS
        while True:
            self.beat(status())
            await asyncio.sleep(min(in_time, BEAT_SECONDS))

    def beat(self, status: str) -> None:
        """Give one sign of life.

        Args:
            status: How the node is.
        """
        lines = ["WATCHDOG=1"] if self._watchdog_seconds else []
        if not self._is_ready:
            lines.append(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * _MICROSECONDS}")
        if status != self._status:
            lines.append(f"STATUS={status}")
        if (lines or self._owed) and self._say(*lines, keep=False):
            self._status = status

    def _say(self, *lines: str, keep: bool = True) -> bool:
        """Send a message; return whether it was taken."""
        if not self._address:
            return False
        message = "\n".join((*self._owed, *lines))
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("the service manager takes no messages", error=error.strerror or str(error))
            self._failed = True
            if keep:
                self._owed.extend(lines)
            return False
        self._failed = False
        self._owed = []
        return True
