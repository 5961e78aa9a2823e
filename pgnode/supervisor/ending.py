"""How a supervisor ends: with the whole node, or by leaving what runs to the next one. In which order, that is the point."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import asdict

from pgnode.supervisor.composition import Components
from pgnode.supervisor.processes.inheritance import Inheritance


async def end_in_order(parts: Components, *, keep_core: bool) -> None:
    """End the node: first who calls it, last what the others need.

    Args:
        parts: What the node consists of.
        keep_core: The core goes on, for a supervisor that takes it over.
    """
    processes = parts.processes
    await processes.api.stop()
    await parts.maintenance.close()
    if not keep_core:
        await parts.node.shut_down()
    await parts.pump.pass_on()
    parts.pump.close()
    await parts.traffic.storing.store_now()
    await parts.committer.close()
    await parts.store.close()
    await parts.bus.server.close()
    if processes.valkey is None:
        await parts.bus.ownership.release()
    parts.bus.answers.drop()
    await parts.bus.redis.aclose()
    if processes.valkey is not None:
        await processes.valkey.stop()


def kill_all(parts: Components, *, keep_core: bool) -> None:
    """Kill what is left, without waiting.

    Args:
        parts: What the node consists of.
        keep_core: The core goes on.
    """
    processes, running = parts.processes, parts.core.running
    processes.api.kill_all()
    if processes.valkey is not None:
        processes.valkey.kill_group()
    if running is not None and not keep_core:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, signal.SIGKILL)


async def close(parts: Components) -> None:
    """Store everything and let go of the bus; the core, the prefix and the workers stay as they are."""
    await parts.maintenance.close()
    await parts.traffic.storing.store_now()
    parts.pump.unwatch()
    await parts.pump.pass_on()
    parts.pump.close()
    await parts.committer.close()
    await parts.store.close()
    await parts.bus.server.close()
    parts.bus.answers.drop()
    await parts.bus.redis.aclose()
    # What ends a process in order does not happen here.
    await asyncio.to_thread(parts.node_log.audit.drain)


def what_is_left(parts: Components, failures: tuple[float, ...]) -> Inheritance:
    """Say what the next supervisor takes over.

    Args:
        parts: What the node consists of; sockets and children belong to the next one from now on.
        failures: When there were restarts because of errors.

    Returns:
        Everything but the lock of the state folder.
    """
    sockets, children = parts.processes.api.hand_over()
    valkey = parts.processes.valkey
    if valkey is not None and (embedded := valkey.hand_over()) is not None:
        children.append(embedded)
    return Inheritance(
        sockets=sockets,
        processes=tuple(children),
        restarts=parts.inheritance.restarts + 1,
        failures=failures,
        core_rest=parts.pump.rest.decode("latin-1"),
        log_counted=asdict(parts.pump.sender.counted),
        revision=parts.snapshots.last_revision,
        log_lines=parts.node_log.lines.left(),
    )
