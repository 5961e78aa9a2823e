"""Free ports for nodes, configs and servers of the tests."""

from __future__ import annotations

import random
import socket

#: Ports are taken from below the range the kernel gives to outgoing connections (32768 and up on Linux), and above
#: those that need privileges, so that nothing takes one between its choice and its use.
_PORTS = range(10_000, 32_000)
#: The samples under tests/ come with ports of their own.
_SAMPLE_PORTS = range(20_400, 20_600)

_random = random.SystemRandom()


def free_port() -> int:
    """A port that is free now, for TCP and UDP, on all addresses of the machine."""
    for _ in range(200):
        port = _random.choice(_PORTS)
        if port in _SAMPLE_PORTS:
            continue
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind(("", port))
                udp.bind(("", port))
            except OSError:
                continue
        return port
    raise OSError("no free port found between 10000 and 32000")
