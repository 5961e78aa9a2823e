"""What a service manager is told, by a socket that takes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.host.service_manager import ServiceManager


class Listener:
    """In place of systemd."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()

    def messages(self) -> list[list[str]]:
        """What came since the last look."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def listener(address: str) -> Iterator[Listener]:
    made = Listener(address)
    yield made
    made.close()


def test_it_is_told_what_the_node_does(address: str, listener: Listener) -> None:
    manager = ServiceManager(address, 40.0)
    manager.beat("starting")
    assert listener.messages() == [["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000", "STATUS=starting"]]
    manager.ready()
    manager.beat("running")
    manager.beat("running")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    manager.stopping()
    ready, first, second, (reloading, since), stopping = listener.messages()
    assert ready == ["READY=1", f"MAINPID={os.getpid()}"]
    assert (first, second) == (["WATCHDOG=1", "STATUS=running"], ["WATCHDOG=1"])
    assert reloading == "RELOADING=1"
    assert int(since.removeprefix("MONOTONIC_USEC=")) >= before
    assert stopping == ["STOPPING=1"]


def test_without_a_watchdog_it_only_hears_news(address: str, listener: Listener) -> None:
    manager = ServiceManager(address)
    manager.ready()
    for status in ("running", "running", "running, 5 users"):
        manager.beat(status)
    assert listener.messages()[1:] == [["STATUS=running"], ["STATUS=running, 5 users"]]


def test_what_was_not_taken_comes_with_the_next_beat(address: str) -> None:
    manager = ServiceManager(address, 40.0)
    manager.ready()
    manager.beat("running")
    listener = Listener(address)
    manager.beat("running")
    manager.beat("running")
    assert listener.messages() == [
        ["READY=1", f"MAINPID={os.getpid()}", "WATCHDOG=1", "STATUS=running"],
        ["WATCHDOG=1"],
    ]
    listener.socket.close()


def test_a_queue_that_is_full_holds_nobody_up(address: str, listener: Listener) -> None:
    manager = ServiceManager(address, 40.0)
    for number in range(2000):
        manager.beat(f"status {number}")
    messages = listener.messages()
    assert 0 < len(messages) < 2000
    manager.beat("at last")
    assert listener.messages() == [["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000", "STATUS=at last"]]


def test_an_abstract_name() -> None:
    name = f"pgnode-test-{os.getpid()}"
    with contextlib.closing(Listener(f"\0{name}")) as listener:
        ServiceManager.take({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert listener.messages() == [["STOPPING=1"]]


def test_its_variables_are_for_this_process_alone(address: str, listener: Listener) -> None:
    environment = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    manager = ServiceManager.take(environment)
    assert environment == {"PATH": "/bin"}
    assert "watchdog 30 s" in repr(manager)
    assert manager.listens
    for pid, usec in (("1", "30000000"), ("", "soon")):
        manager = ServiceManager.take({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid})
        assert "watchdog 0 s" in repr(manager), "it is another process's"
    for other in ({}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        nobody = ServiceManager.take(dict(other))
        assert not nobody.listens
        nobody.ready()
        nobody.beat("running")
    assert listener.messages() == []


async def test_four_beats_fit_into_the_watchdogs_time(address: str, listener: Listener) -> None:
    manager = ServiceManager(address, 0.04)
    keeping = asyncio.create_task(manager.keep(lambda: "running"))
    beats = 0
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while beats < 3:
            came = loop.create_future()
            loop.add_reader(listener.socket, came.set_result, None)
            await came
            loop.remove_reader(listener.socket)
            beats += sum("WATCHDOG=1" in message for message in listener.messages())
    await end_tasks([keeping])
