"""Hosts that are not there: each a network and a table of processes of its own, on one bridge; without root, loopback addresses.

The bench itself moves into a network of its own for as long, so that nothing of this is seen by the machine, and all that it
starts goes with it. Workers on such a host see no process of the supervisor's, as on another machine, so no memory of its either.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from pgnode.testing.processes import tree

_CLONE_NEWNET = 0x40000000
#: Of the bridge, and the beginning of the hosts'.
_NETWORK = "10.77.0."
_BRIDGE = "02:00:0a:4d:00:01"
#: What a host stays for.
_SECONDS = "3600"

_libc = ctypes.CDLL(None, use_errno=True)


class HostError(Exception):
    """A host could not be made."""


@dataclass
class Host:
    """One of them. ``command`` goes in front of what is to run there."""

    address: str
    command: tuple[str, ...] = ()
    #: All that runs there ends with it.
    init: asyncio.subprocess.Process | None = None
    #: What runs on it, where it is no more than an address.
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def run(self, *words: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        """Start a process there, in the background; it says nothing."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            *words,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    async def die(self) -> None:
        """End everything that runs there, at once."""
        pids = [process.pid for one in self.processes for process in tree(one.pid)]
        if self.init is not None and self.init.returncode is None:
            pids = [process.pid for process in tree(self.init.pid)]
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        for process in [*self.processes, *([self.init] if self.init is not None else [])]:
            await process.wait()
        self.processes.clear()


@dataclass
class Hosts:
    """All of them, and where the supervisor is."""

    #: The address at which hosts reach what the bench runs itself.
    center: str
    hosts: list[Host]
    #: What they are, for the head of the table.
    kind: str

    async def back(self, number: int) -> None:
        """Have a host that died again."""
        if self.kind == NAMESPACES:
            self.hosts[number] = await _made(number)


NAMESPACES = "network and process namespaces on a bridge"
ADDRESSES = "loopback addresses: no root, or no `ip`"


@contextlib.asynccontextmanager
async def hosts(count: int) -> AsyncIterator[Hosts]:
    """Make hosts; what is started within is in their network."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        made = Hosts("127.0.0.1", [Host(f"127.0.0.{number + 11}") for number in range(count)], ADDRESSES)
        try:
            yield made
        finally:
            await _end(made)
        return
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
        made = Hosts(f"{_NETWORK}1", [], NAMESPACES)
        try:
            await _ip("link", "set", "lo", "up")
            # By itself it takes the address of a cable, and another one when cables come and go: hosts would lose it for seconds.
            await _ip("link", "add", "pgnode", "address", _BRIDGE, "type", "bridge")
            await _ip("address", "add", f"{made.center}/24", "dev", "pgnode")
            await _ip("link", "set", "pgnode", "up")
            for number in range(count):
                made.hosts.append(await _made(number))
            yield made
        finally:
            await _end(made)
            _call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


async def _end(made: Hosts) -> None:
    for host in made.hosts:
        await host.die()


async def _made(number: int) -> Host:
    """A host: a process that keeps its namespaces, and a cable to the bridge."""
    init = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sleep", _SECONDS),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        # It complains of its end.
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await _joined(init, f"{_NETWORK}{number + 11}")
    except BaseException:
        await Host("", (), init).die()
        raise


async def _joined(init: asyncio.subprocess.Process, address: str) -> Host:
    """Give the namespaces of a process a cable to the bridge."""
    async with asyncio.timeout(10):
        while not (found := tree(init.pid)[1:]):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    # That of a host which died is there for a moment.
    inside, cable = str(found[0].pid), f"cable{found[0].pid}"
    command = ("nsenter", "--target", inside, "--net", "--pid", "--mount", "--")
    await _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", inside)
    await _ip("link", "set", cable, "master", "pgnode", "up")
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
    ):
        await _ip(*words, inside=command)
    # A host that died had the same address at another cable.
    await _ip("neighbour", "flush", "dev", "pgnode")
    return Host(address, command, init)


async def _ip(*words: str, inside: Sequence[str] = ()) -> None:
    """Run ``ip``. HostError."""
    process = await asyncio.create_subprocess_exec(
        *inside, "ip", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise HostError(f"ip {' '.join(words)}: {said.decode().strip()}")


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise HostError(f"{name}: {os.strerror(number)}")
