"""Free ports for nodes, configs and servers of the tests."""

from __future__ import annotations

import os
import random
import socket

#: Ports are taken from below the range the kernel gives to outgoing connections (32768 and up on Linux), and above
#: those that need privileges, so that nothing takes one between its choice and its use.
PORTS = range(10_000, 32_000)
#: Names the part of them that this process and those it starts may use, as "first-last"; several that run at the same time
#: share the ports out.
PORTS_VARIABLE = "PGNODE_TESTING_PORTS"

#: The samples under tests/ come with ports of their own.
_SAMPLE_PORTS = range(20_400, 20_600)

_random = random.SystemRandom()

#: Ports that this process was given: nobody may have begun to listen there yet.
_given: set[int] = set()


def free_port() -> int:
    """Find a port that is free now, for TCP and UDP, on all addresses of the machine.

    Returns:
        The port; no other call in this process gets it. Nobody holds it, so that another process may take it.

    Raises:
        OSError: None was found.
    """
    first, _, last = os.environ.get(PORTS_VARIABLE, f"{PORTS.start}-{PORTS.stop - 1}").partition("-")
    for _ in range(200):
        port = _random.randint(int(first), int(last))
        if port in _SAMPLE_PORTS or port in _given:
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
        _given.add(port)
        return port
    raise OSError(f"no free port found between {first} and {last}")
