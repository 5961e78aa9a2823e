"""How many connections of users are open, by inbound, as far as the kernel knows of them: those over TCP, to a port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pgnode.os_support.tcp_counts import open_connections
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.process.running import RunningCore


def names_by_port(base: BaseConfig) -> dict[int, str]:
    """Return which inbound listens on which port of TCP, as an operator would call it; of several on one the first."""
    names: dict[int, str] = {}
    for spec in base.inbounds:
        if "tcp" not in spec.kinds:
            continue
        for first, last in spec.ports:
            for port in range(first, last + 1):
                names.setdefault(port, spec.tag or spec.title)
    return names


async def count_connections(running: RunningCore | None, base: BaseConfig | None) -> Mapping[str, int]:
    """Count users' connections.

    Args:
        running: The core.
        base: Its config.

    Returns:
        Inbound -> how many, also where there are none; inbounds without a port of TCP are left out.
    """
    if running is None or base is None:
        return {}
    names = names_by_port(base)
    found = dict.fromkeys(names.values(), 0)
    for port, number in (await asyncio.to_thread(open_connections, running.pid, names)).items():
        found[names[port]] += number
    return found
