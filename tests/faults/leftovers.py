"""What a fault must not leave: processes, sockets, files, keys of the bus and descriptors that nobody needs any more.

A node that runs has what it needs for that, and nothing else; one that has ended has its state, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import psutil
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.settings import load as load_settings
from pgnode.testing.node import NodeProcess
from pgnode.testing.processes import command_line, tree
from pgnode.xray.process import run_folder
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import core_in, listens

#: What is there while the node runs as after its end.
_STANDING: Final = (
    # On a disk without room the log of the store stays beside it, with what is in no other place.
    r"api_key|assets|run|state\.db(-wal|-shm)?|store\.0\.5(/.*)?|tls|tls/(cert|key)\.pem",
    r"audit\.log(\.1)?",
    r"run/(children\.json|node\.lock|restart\.json|tls\.pem|valkey\.conf)",
    r"cores|cores/chosen\.json",
    # What an operator may want to look at.
    r".*\.unusable(\.\d+)?(/.*)?",
)
#: What is there while it runs.
_RUNNING: Final = (r"run/(valkey|control)\.sock",)
#: What is there while a core runs.
_OF_CORE: Final = (
    r"run/core\.(json|copy\.json|spec\.json|change\.json|files\.json|sock|sock\.lock|log\.fifo)",
    r"run/reach\.sock",
)
_CORE = re.compile(r"cores/(?P<version>\d+\.\d+\.\d+)(/xray|/sha256)?")
#: A file that was being written when its writer was killed: the next writing takes its place.
_HALF_WRITTEN: Final = ".new"

#: Keys of the bus without an end, and those that have one.
_LASTING_KEYS: Final = re.compile(r"commands|log:node|activity|snapshot:[a-z.]+")
_PASSING_KEYS: Final = re.compile(r"(replies|blob|loan|worker|owner):.+|log|owner|reports")

#: The flag of a unix socket that takes connections, as ``/proc/net/unix`` shows it.
_LISTENING: Final = "00010000"

#: Descriptors of a supervisor that come and go: connections to the bus and to the core, lines to children.
_SPARE: Final = {"socket": 8, "pipe": 10, "anon_inode": 6, "file": 2}
#: Those of an API worker: one that has just begun has no connection to the bus and no threads yet. Callers' connections are not
#: counted.
_SPARE_OF_WORKERS: Final = {"socket": 16, "pipe": 10, "anon_inode": 16, "file": 2}
_WORKERS: Final = ("-m gunicorn", "pgnode.worker.grpc_worker")

#: What is in the name of the file by which Gunicorn's master sees that a worker lives; it has one of each.
_HEARTBEAT: Final = "/wgunicorn-"

#: Node -> pid of a supervisor or an API worker -> its descriptors by kind at the first look.
_DESCRIPTORS: WeakKeyDictionary[NodeProcess, dict[int, Counter[str]]] = WeakKeyDictionary()


@dataclass
class Found:
    """What a look came to."""

    #: What is left behind, in words.
    left: list[str] = field(default_factory=list)
    #: How many things were looked at.
    looked: int = 0

    def add(self, looked: int, left: Iterable[str]) -> None:
        """Add what was looked at, and what of it nobody needs."""
        self.looked += looked
        self.left += left


class TidyNode(NodeProcess):
    """A node that leaves nothing when it ends."""

    async def __aexit__(self, *error: object) -> None:
        """End it, and look. AssertionError with what it left."""
        try:
            await self.stop()
            if not any(error):
                await ended_tidily(self)
        finally:
            await super().__aexit__(*error)


async def tidy(node: NodeProcess, trial: Trial) -> None:
    """A node that runs and is at rest has nothing that it does not need. AssertionError with what is left behind."""
    found = Found()

    async def nothing() -> bool:
        nonlocal found
        found = Found(["the bus does not answer"])
        found = await look(node)
        return not found.left

    try:
        await eventually(nothing, "nothing is left behind", errors=(*BUS_ERRORS, psutil.Error))
    except AssertionError:
        raise AssertionError(f"left behind by {trial.measured.fault!r}: {found.left}") from None
    finally:
        trial.left(len(found.left), found.looked)


async def ended_tidily(node: NodeProcess, trial: Trial | None = None) -> None:
    """A node that has ended has left nothing. AssertionError with what is there."""
    found = Found()

    def nothing() -> bool:
        nonlocal found
        found = after_the_end(node)
        return not found.left

    try:
        await eventually(nothing, "nothing is left behind")
    except AssertionError:
        raise AssertionError(f"left behind by {node!r}: {found.left}") from None
    finally:
        if trial is not None:
            trial.left(len(found.left), found.looked)


async def look(node: NodeProcess) -> Found:
    """Look once at all that a running node has."""
    found = Found()
    core = core_anywhere(node)
    _look_at_processes(node, core, found)
    _look_at_files(node, found, running=True, core=core_in(node.run_dir) != 0)
    folders = [folder for folder in run_folder.fallbacks(node.run_dir) if folder.exists()]
    found.add(len(folders), [f"folder {folder} without a core" for folder in folders if not core_in(folder)])
    _look_at_descriptors(node, found)
    await _look_at_bus(node, found)
    return found


def after_the_end(node: NodeProcess) -> Found:
    """Look once at all that a node has left."""
    found = Found()
    pids = processes_of(node)
    found.add(1, [f"process {pid}: {command}" for pid, command in pids.items()])
    _look_at_files(node, found, running=False, core=False)
    found.add(1, [f"folder {folder}" for folder in run_folder.fallbacks(node.run_dir) if folder.exists()])
    ports = (node.port, node.api_port, node.grpc_port)
    found.add(len(ports), [f"somebody listens on port {port}" for port in ports if listens(port)])
    return found


# --- processes ------------------------------------------------------------------------------------------------------------


def core_anywhere(node: NodeProcess) -> int:
    """The core's process, in whichever folder its record is; 0 when there is none."""
    places = (node.run_dir, *run_folder.fallbacks(node.run_dir))
    return next((pid for place in places if (pid := core_in(place))), 0)


def processes_of(node: NodeProcess) -> dict[int, str]:
    """Pid -> command of all that name the state folder in their command line or environment, work in it or have a file open."""
    wanted = os.fsencode(node.state_dir)
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(wanted in place for place in _places(Path("/proc", name))):
                command = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(name)] = command.decode(errors="replace").strip()
    return found


def _places(process: Path) -> Iterator[bytes]:
    yield (process / "cmdline").read_bytes()
    yield (process / "environ").read_bytes()
    yield bytes((process / "cwd").readlink())
    for descriptor in os.listdir(process / "fd"):
        with contextlib.suppress(FileNotFoundError):
            yield bytes((process / "fd" / descriptor).readlink())


def _look_at_processes(node: NodeProcess, core: int, found: Found) -> None:
    family = {process.pid: process for process in tree(node.pid)}
    pids = processes_of(node)
    found.add(len(pids), [f"process {pid}: {pids[pid]}" for pid in pids if pid not in family and pid != core])
    kinds: Counter[str] = Counter()
    for pid, process in family.items():
        if process.status() == psutil.STATUS_ZOMBIE:
            found.add(1, [f"{pid} has ended, and nobody has taken note of it"])
        elif pid not in (node.pid, core):
            kinds[_kind(command_line(process))] += 1
    found.add(0, [f"{count} processes of the kind {kind!r}" for kind, count in kinds.items() if count > _most(kind)])


def _kind(command: str) -> str:
    known = ("valkey-server", "-m gunicorn", "pgnode.worker.grpc_worker", "multiprocess.resource_tracker")
    return next((kind for kind in known if kind in command), command)


def _most(kind: str) -> float:
    """How many there may be: how many API workers there are is for the operator and Gunicorn to say."""
    most = {"valkey-server": 1, "multiprocess.resource_tracker": 1}
    return most.get(kind, float("inf") if kind in ("-m gunicorn", "pgnode.worker.grpc_worker") else 0)


def _look_at_descriptors(node: NodeProcess, found: Found) -> None:
    _look_at_descriptors_of(node, node.pid, _SPARE, found)
    for process in tree(node.pid):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            if _kind(command_line(process)) in _WORKERS:
                _look_at_descriptors_of(
                    node,
                    process.pid,
                    _SPARE_OF_WORKERS,
                    found,
                    callers=connections_of(process),
                    children=len(process.children()),
                )


def _look_at_descriptors_of(
    node: NodeProcess, pid: int, spare: Mapping[str, int], found: Found, *, callers: int = 0, children: int = 0
) -> None:
    now: Counter[str] = Counter()
    heartbeats = 0
    folder = Path("/proc", str(pid), "fd")
    for descriptor in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            target = str((folder / descriptor).readlink())
            kind = target.partition(":")[0]
            now[kind if kind in spare else "file"] += 1
            heartbeats += _HEARTBEAT in target
    now["socket"] -= callers
    now["file"] -= min(heartbeats, children)
    first = _DESCRIPTORS.setdefault(node, {}).setdefault(pid, now)
    grown = {kind: count - first[kind] for kind, count in now.items() if count > first[kind] + spare[kind]}
    whose = "" if pid == node.pid else f" in the worker {pid}"
    found.add(now.total(), [f"{more} more descriptors of the kind {kind!r}{whose}" for kind, more in grown.items()])


def connections_of(process: psutil.Process) -> int:
    """How many connections callers have with a worker. One whose caller has gone, and which the worker keeps, is none."""
    return sum(found.status == psutil.CONN_ESTABLISHED for found in process.net_connections(kind="tcp"))


# --- files ------------------------------------------------------------------------------------------------------------------


def _look_at_files(node: NodeProcess, found: Found, *, running: bool, core: bool) -> None:
    known = [*_STANDING, *(_RUNNING if running else ()), *(_OF_CORE if core else ())]
    pattern = re.compile("|".join(f"(?:{one})" for one in known))
    kept = _kept_cores(node.state_dir)
    served = _served_sockets()
    count, left = 0, []
    for path in node.state_dir.rglob("*"):
        count += 1
        name = str(path.relative_to(node.state_dir))
        version = _CORE.fullmatch(name)
        if version is not None and version["version"] in kept:
            continue
        if not pattern.fullmatch(name.removesuffix(_HALF_WRITTEN)):
            left.append(f"file {name}")
        # The kernel tells the name that a socket was bound to, before it was moved into place.
        elif _is_socket(path) and not served & {str(path), f"{path}{_HALF_WRITTEN}"}:
            left.append(f"socket {name} that nobody serves")
    found.add(count, left)


def _kept_cores(state_dir: Path) -> list[str]:
    """Versions of cores that are kept to go back to."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [str(version) for version in json.loads((state_dir / "cores" / "chosen.json").read_text())["kept"]]
    return []


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _served_sockets() -> set[str]:
    """Paths of unix sockets that somebody listens on."""
    lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    fields = [line.split(maxsplit=7) for line in lines]
    return {found[7] for found in fields if len(found) == 8 and found[3] == _LISTENING}


# --- the bus ----------------------------------------------------------------------------------------------------------------


async def _look_at_bus(node: NodeProcess, found: Found) -> None:
    environment = node.environment()
    given = {name: environment[name.upper()] for name in ("redis_url", "redis_prefix") if environment.get(name.upper())}
    settings = await asyncio.to_thread(lambda: load_settings(state_dir=node.state_dir, **given))
    async with contextlib.aclosing(connect(settings.bus_url, connections=1)) as redis:
        await _look_at_keys(redis, settings.bus_prefix, found)
        for group in await redis.xinfo_groups(Keys(settings.bus_prefix).commands):
            found.add(1, [f"{group['pending']} commands that nobody answers"] if group["pending"] else [])
            found.add(1, [f"{group['consumers']} readers of commands"] if group["consumers"] > 1 else [])


async def _look_at_keys(redis: Redis, prefix: str, found: Found) -> None:
    async for raw in redis.scan_iter(match=f"{prefix}:*", count=1000):
        key = raw.decode() if isinstance(raw, bytes) else str(raw)
        name = key.removeprefix(f"{prefix}:")
        found.add(1, [])
        if _LASTING_KEYS.fullmatch(name):
            continue
        if not _PASSING_KEYS.fullmatch(name):
            found.add(0, [f"key {key}"])
        elif await redis.pttl(raw) == -1:
            found.add(0, [f"key {key} without an end"])
