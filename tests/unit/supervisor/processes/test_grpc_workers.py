"""All gRPC workers: slots are filled again, whoever leaves is replaced first."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.errors import ChildFailedError, PortInUseError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import PROCESS
from pgnode.settings import load
from pgnode.settings.handover import Handover, hand_over
from pgnode.supervisor.processes.grpc_process import GrpcProcess
from pgnode.supervisor.processes.grpc_workers import GrpcSlot, GrpcWorkers
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.supervisor.processes.restarts import Restarter
from pgnode.testing.clock import HurryingClock
from pgnode.testing.processes import is_running
from tests.support.polling import eventually, next_turn

MODULE = "tests.support.fake_grpc_worker"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., GrpcWorkers]]:
    made: list[GrpcWorkers] = []
    port = free_port()

    def make_workers(
        inheritance: Inheritance = NOTHING, grpc_workers: int = 2, tell: Callable[[Entry], None] = PROCESS.write
    ) -> GrpcWorkers:
        settings = load(
            state_dir=str(tmp_path),
            service_protocol="grpc",
            grpc_workers=grpc_workers,
            node_host="127.0.0.1",
            service_port=port,
        )
        registry, restarter = PidRegistry(tmp_path / "children.json"), Restarter(HurryingClock())
        found = (settings, hand_over(settings), registry, restarter)
        made.append(GrpcWorkers(*found, module=MODULE, inheritance=inheritance, tell=tell))
        return made[-1]

    yield make_workers
    for found in made:
        await found.stop()


@pytest.fixture
def workers(make: Callable[..., GrpcWorkers]) -> GrpcWorkers:
    return make()


def pids(workers: GrpcWorkers | GrpcSlot) -> list[int]:
    slots = workers._slots if isinstance(workers, GrpcWorkers) else [workers]
    return [process.pid for slot in slots for process in slot.processes if process.pid is not None]


async def test_every_slot_is_kept_filled(workers: GrpcWorkers) -> None:
    workers.reserve_port()
    await workers.start()
    before = pids(workers)
    assert len(before) == 2
    assert "grpc-1" in repr(workers)
    keeping = asyncio.create_task(workers.keep())
    os.kill(before[0], signal.SIGKILL)
    await eventually(lambda: len(pids(workers)) == 2 and before[0] not in pids(workers), "another worker")
    assert before[1] in pids(workers)
    assert not keeping.done()
    await end_tasks([keeping])
    workers.kill_all()
    await eventually(lambda: pids(workers) == [], "all have ended")


async def test_the_port_is_held_until_the_end(workers: GrpcWorkers) -> None:
    workers.reserve_port()
    with pytest.raises(PortInUseError, match="SERVICE_PORT"):
        workers.reserve_port()
    await workers.stop()
    workers.reserve_port()


async def test_without_grpc_there_is_nothing_to_keep(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), service_protocol="rest")
    none = GrpcWorkers(settings, Handover(0), PidRegistry(tmp_path / "children.json"), Restarter())
    none.reserve_port()
    await none.start()
    keeping = asyncio.create_task(none.keep())
    done, _ = await asyncio.wait({keeping}, timeout=0.05)
    assert not done
    await end_tasks([keeping])
    await none.stop()


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[GrpcSlot]:
    handover = hand_over(load(state_dir=str(tmp_path)))
    registry = PidRegistry(tmp_path / "children.json")
    found = GrpcSlot(1, lambda: GrpcProcess(f"grpc-{len(pids(found)) + 1}", handover, registry, module=MODULE))
    yield found
    await found.stop()


async def test_one_that_leaves_ends_when_its_replacement_is_there(
    slot: GrpcSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WORKER", "leaving")
    await slot.start()
    (first,) = pids(slot)
    monkeypatch.setenv("FAKE_WORKER", "well")
    ended = asyncio.create_task(slot.ended())
    await eventually(lambda: pids(slot) and pids(slot) != [first] and first not in pids(slot), "it has gone")
    assert not ended.done()
    # Its pid goes a turn of the event loop before its place among those that leave.
    await eventually(lambda: "0 leaving" in repr(slot), "nobody leaves")
    await end_tasks([ended])


async def test_one_that_leaves_goes_on_until_a_replacement_comes_up(
    slot: GrpcSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WORKER", "leaving")
    await slot.start()
    (first,) = pids(slot)
    monkeypatch.setenv("FAKE_WORKER", "broken")
    assert "its replacement did not come up" in await slot.ended()
    with pytest.raises(ChildFailedError):
        await slot.start()
    assert pids(slot) == [first]
    assert slot.pid == first
    monkeypatch.setenv("FAKE_WORKER", "well")
    await slot.start()
    assert slot.pid != first
    await eventually(lambda: pids(slot) == [slot.pid], "the first has gone")


async def test_one_that_dies_while_it_waits_for_a_replacement(slot: GrpcSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER", "leaving")
    await slot.start()
    (first,) = pids(slot)
    monkeypatch.setenv("FAKE_WORKER", "broken")
    await slot.ended()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: pids(slot) == [], "it has ended")
    monkeypatch.setenv("FAKE_WORKER", "well")
    await slot.start()
    assert slot.is_filled


async def test_a_system_without_descriptors_is_told_as_its_own_error() -> None:
    def full() -> GrpcProcess:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(ChildFailedError, match="gRPC worker 1 cannot be started: Too many open files"):
        await GrpcSlot(1, full).start()


async def test_they_go_on_under_the_next_supervisor_and_are_renewed(
    workers: GrpcWorkers, make: Callable[..., GrpcWorkers]
) -> None:
    workers.reserve_port()
    await workers.start()
    before = pids(workers)
    inheritance = Inheritance(processes=tuple(workers.hand_over()), sockets=workers.hand_over_port())
    assert list(inheritance.sockets) == workers.port_names
    assert workers.hand_over_port() == {}
    following = make(inheritance)
    await following.take_over()
    following.reserve_port(inherited=True)
    assert pids(following) == before
    await following.start()
    assert pids(following) == before, "none was missing"
    await following.renew()
    assert not set(before) & {slot._process.pid for slot in following._slots if slot._process is not None}
    assert "grpc-4" in repr(following)
    await eventually(lambda: not any(map(is_running, before)), "those before have ended")


async def test_those_for_which_there_is_no_slot_are_ended(
    workers: GrpcWorkers, make: Callable[..., GrpcWorkers]
) -> None:
    await workers.start()
    before = pids(workers)
    fewer = make(Inheritance(processes=tuple(workers.hand_over())), grpc_workers=1)
    await fewer.take_over()
    assert list(fewer.pids.values()) == before[:1]
    await eventually(lambda: not is_running(before[1]), "the other one has ended")


async def test_a_slot_whose_worker_has_ended_is_filled(
    workers: GrpcWorkers, make: Callable[..., GrpcWorkers], monkeypatch: pytest.MonkeyPatch
) -> None:
    await workers.start()
    before = pids(workers)
    left = workers.hand_over()
    os.kill(before[0], signal.SIGKILL)
    await eventually(lambda: not is_running(before[0]), "it has ended")
    following = make(Inheritance(processes=tuple(left)))
    await following.take_over()
    assert pids(following) == before[1:]
    await following.renew()
    assert len(pids(following)) >= 2
    monkeypatch.setenv("FAKE_WORKER", "broken")
    with pytest.raises(ChildFailedError, match="was not replaced; the one before goes on"):
        await following.renew()


async def test_there_are_more_and_fewer_and_all_are_kept(workers: GrpcWorkers) -> None:
    await workers.start()
    await workers.add()
    assert (len(pids(workers)), workers.added) == (3, 1)
    keeping = asyncio.create_task(workers.keep())
    await next_turn()
    await workers.add()
    assert (len(set(workers.pids.values())), workers.added) == (4, 2)
    victims = set(pids(workers)[2:])
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    await eventually(lambda: len(pids(workers)) == 4 and not victims & set(pids(workers)), "others")
    last = pids(workers)[3]
    for _ in range(2):
        await workers.remove()
    assert (len(pids(workers)), workers.added) == (2, 0)
    assert not is_running(last)
    await workers.remove()
    await workers.remove()
    assert (len(pids(workers)), workers.added) == (1, -1), "one stays"
    assert not keeping.done()
    await end_tasks([keeping])


async def test_whoever_leaves_while_others_serve_is_told_so(make: Callable[..., GrpcWorkers]) -> None:
    said: list[Entry] = []

    def told() -> tuple[int, int]:
        return str(said).count("others serve"), str(said).count("nobody else serves")

    workers = make(tell=said.append)
    await workers.start()
    keeping = asyncio.create_task(workers.keep())
    await workers.remove()
    assert told() == (1, 0)
    (last,) = pids(workers)
    # What a worker does that somebody else has told to end.
    workers._slots[0]._process._leaving.set()  # type: ignore[union-attr]
    await eventually(lambda: not is_running(last), "it was replaced")
    await eventually(lambda: told() == (2, 0), "it was told")
    await end_tasks([keeping])
    await workers.stop()
    assert told() == (2, 1)


async def test_one_that_does_not_come_up_is_not_there(workers: GrpcWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    await workers.start()
    monkeypatch.setenv("FAKE_WORKER", "broken")
    with pytest.raises(ChildFailedError):
        await workers.add()
    assert (len(pids(workers)), workers.added) == (2, 0)


async def test_they_are_replaced_while_the_node_runs(workers: GrpcWorkers) -> None:
    await workers.start()
    keeping = asyncio.create_task(workers.keep())
    first, second = pids(workers)
    assert await workers.restart(first) == []
    assert second in workers.pids.values()
    assert first not in workers.pids.values()
    assert await workers.restart() == []
    assert not {first, second} & set(workers.pids.values())
    await eventually(lambda: len(pids(workers)) == 2, "those before have ended")
    await end_tasks([keeping])
