"""In which order a node ends, and what a supervisor leaves to the next one."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.supervisor import ending
from pgnode.supervisor.composition import Components
from pgnode.supervisor.processes.inheritance import Inheritance
from tests.unit.supervisor.fakes import LEFT, Parts

#: The order of what both ways of ending do with what is stored and with the bus.
STORED = ["storing.store_now", "committer.close", "store.close", "server.close"]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def components(parts: Parts) -> Components:
    return cast(Any, parts)  # type: ignore[no-any-return]


@pytest.mark.parametrize("keep_core", [False, True])
async def test_a_node_ends_from_its_callers_down(parts: Parts, keep_core: bool) -> None:
    await ending.end_in_order(components(parts), keep_core=keep_core)
    core = [] if keep_core else ["node.shut_down"]
    assert parts.calls == [
        "api.stop",
        "maintenance.close",
        *core,
        "pump.pass_on",
        *STORED,
        "redis.aclose",
        "valkey.stop",
    ]


async def test_beside_an_external_redis_the_prefix_is_given_up(parts: Parts) -> None:
    parts.processes.valkey = None
    await ending.end_in_order(components(parts), keep_core=True)
    assert parts.calls[-2:] == ["ownership.release", "redis.aclose"]


@pytest.mark.parametrize("keep_core", [False, True])
async def test_what_is_left_is_killed(parts: Parts, keep_core: bool) -> None:
    core = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    parts.core.running = core
    ending.kill_all(components(parts), keep_core=keep_core)
    assert parts.calls == ["killed", "killed"]
    if keep_core:
        assert core.returncode is None
        core.kill()
    assert await core.wait() == -signal.SIGKILL
    ending.kill_all(components(parts), keep_core=False)


async def test_who_is_followed_stores_everything_and_leaves_the_rest(parts: Parts) -> None:
    await ending.close(components(parts))
    stored = [*STORED[:1], "pump.pass_on", *STORED[1:]]
    assert parts.calls == ["maintenance.close", *stored, "redis.aclose"]


@pytest.mark.parametrize("embedded", [None, replace(LEFT, name="valkey")])
def test_the_next_supervisor_is_told_what_there_is(parts: Parts, embedded: Any) -> None:
    parts.processes.valkey.hand_over = lambda: embedded
    parts.inheritance = Inheritance(restarts=2)
    children = (LEFT,) if embedded is None else (LEFT, embedded)
    parts.node_log.lines.ring.put(b"a line", 1.0, 1)
    assert ending.what_is_left(components(parts), (1.5,)) == Inheritance(
        sockets={"SERVICE_PORT": 7},
        processes=children,
        restarts=3,
        failures=(1.5,),
        core_rest="half",
        log_counted={"source": "one", "number": 7},
        revision=5,
        log_lines=parts.node_log.lines.left(),
    )


def test_without_an_embedded_valkey_there_is_none_to_leave(parts: Parts) -> None:
    parts.processes = SimpleNamespace(valkey=None, api=parts.processes.api)
    assert ending.what_is_left(components(parts), ()).processes == (LEFT,)
