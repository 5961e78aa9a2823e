"""The gRPC workers: how many there are, which of them are well, and the port that they share.

Each has a place (1, 2, …) that is always filled: one that ends is brought back at once, one that falls silent is killed,
and one that was told to end is let go when its replacement has the port.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys

import structlog

from pgnode.bus.heartbeat import BEAT_SECONDS, LEAVING
from pgnode.errors import ChildFailedError, PortInUseError
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings
from pgnode.supervisor.processes.child import Child, PidRegistry
from pgnode.supervisor.processes.restart_policy import GiveUp, RestartPolicy

log = structlog.get_logger(__name__)

#: Signs of life that may be missing in a row before a worker counts as hung. Counted, not timed: when this process itself
#: was held up, nobody is killed for it.
MISSED_MAX = 8


class GrpcProcess:
    """One worker process and the supervisor's end of its line."""

    def __init__(self, name: str, settings: Settings, records: PidRegistry) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._beaten = asyncio.Event()
        self.leaving = asyncio.Event()
        self.child = Child(
            name,
            [sys.executable, "-m", "pgnode.worker.grpc_worker", str(self._far.fileno())],
            environment={**os.environ, "STATE_DIR": str(settings.state_dir), "GRPC_ENABLE_FORK_SUPPORT": "0"},
            ready=self._first_beat,
            records=records,
            pass_fds=(self._far.fileno(),),
        )

    def __repr__(self) -> str:
        return f"GrpcProcess({self.child})"

    async def start(self) -> None:
        """Start it and wait until it takes calls. Raises ChildFailedError."""
        asyncio.get_running_loop().add_reader(self._near, self._read)
        try:
            await self.child.start()
        except BaseException:
            self.let_go()
            raise
        finally:
            self._far.close()

    def let_go(self) -> None:
        """Tell it to end now, without waiting for a replacement."""
        if self._near.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._near)
            self._near.close()

    async def stop(self) -> None:
        """End it: calls under way get their grace."""
        self.let_go()
        await self.child.stop()

    async def hung(self) -> None:
        """Return when it has fallen silent."""
        missed = 0
        while missed < MISSED_MAX:
            self._beaten.clear()
            await asyncio.sleep(BEAT_SECONDS)
            missed = 0 if self._beaten.is_set() else missed + 1

    async def _first_beat(self) -> None:
        await self._beaten.wait()

    def _read(self) -> None:
        try:
            data = self._near.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # It has ended, or is about to.
            asyncio.get_running_loop().remove_reader(self._near)
        if LEAVING in data:
            self.leaving.set()
        if data:
            self._beaten.set()


class GrpcWorkers:
    """All of them. Belongs to the supervisor's loop."""

    def __init__(self, settings: Settings, records: PidRegistry) -> None:
        self._settings = settings
        self._records = records
        self._places: list[GrpcProcess] = []
        #: Processes that were replaced and finish their last calls.
        self._leaving: set[asyncio.Task[None]] = set()
        self._old: set[GrpcProcess] = set()
        self._reserved: socket.socket | None = None
        self._number = 0

    def __repr__(self) -> str:
        return f"GrpcWorkers({self._places})"

    @property
    def pids(self) -> list[int]:
        return [p.child.pid for p in (*self._places, *self._old) if p.child.pid is not None]

    def reserve_port(self) -> None:
        """Hold the port for this node's workers alone. Raises PortInUseError.

        A socket that is bound and never listens: workers of this node bind beside it, whether one is up or not, and a
        second node, whose workers would share the port without a word, finds it taken.
        """
        if self._settings.grpc_worker_count:
            self._reserved = reserved(self._settings.node_host, *self._settings.grpc_listen)

    async def start(self) -> None:
        """Start all and wait until they take calls. Raises ChildFailedError."""
        self._places = [self._new() for _ in range(self._settings.grpc_worker_count)]
        await asyncio.gather(*(process.start() for process in self._places))

    async def keep(self) -> None:
        """Keep every place filled, until cancelled; raises ChildFailedError when a worker does not stay up."""
        tasks = [asyncio.create_task(self._keep(place)) for place in range(len(self._places))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            await end_tasks(tasks)

    async def stop(self) -> None:
        await end_tasks(list(self._leaving))
        await asyncio.gather(*(process.stop() for process in (*self._places, *self._old)))
        if self._reserved is not None:
            self._reserved.close()

    def _new(self) -> GrpcProcess:
        self._number += 1
        return GrpcProcess(f"grpc-{self._number}", self._settings, self._records)

    async def _keep(self, place: int) -> None:
        policy = RestartPolicy(max_deaths=10)
        while True:
            process = self._places[place]
            ended = asyncio.create_task(process.child.wait())
            hung = asyncio.create_task(process.hung())
            leaving = asyncio.create_task(process.leaving.wait())
            try:
                await asyncio.wait({ended, hung, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done() and not ended.done() and await self._replaced(place):
                    continue
                if hung.done() and not ended.done():
                    log.warning("worker hangs, replacing it", child=process.child.name, pid=process.child.pid)
                    process.child.signal(signal.SIGKILL)
                await ended
            finally:
                await end_tasks([ended, hung, leaving])
            process.let_go()
            self._records.remove(process.child.name)
            await self._bring_back(place, policy)

    async def _replaced(self, place: int) -> bool:
        """Put another process in the place of one that leaves, and let that one go; False when no other came up."""
        old, new = self._places[place], self._new()
        log.info("worker leaves, replacing it", child=old.child.name, pid=old.child.pid)
        try:
            await new.start()
        except ChildFailedError as error:
            log.warning("child did not come up", child=new.child.name, error=str(error))
            old.let_go()
            return False
        self._places[place] = new
        self._old.add(old)
        task = asyncio.create_task(self._end(old))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return True

    async def _end(self, process: GrpcProcess) -> None:
        await process.stop()
        self._old.discard(process)

    async def _bring_back(self, place: int, policy: RestartPolicy) -> None:
        loop = asyncio.get_running_loop()
        while True:
            decision = policy.died(loop.time(), None, random.random())  # noqa: S311 - jitter, not a secret
            tail = self._places[place].child.last_lines
            if isinstance(decision, GiveUp):
                raise ChildFailedError("\n".join([f"the gRPC worker is given up: {decision.reason}", *tail]))
            log.warning("worker ended, bringing it back", pause=round(decision.delay_seconds, 2))
            await asyncio.sleep(decision.delay_seconds)
            self._places[place] = self._new()
            try:
                await self._places[place].start()
                return
            except ChildFailedError as error:
                log.warning("child did not come up", child=self._places[place].child.name, error=str(error))


def reserved(host: str, setting: str, port: int) -> socket.socket:
    """A socket that holds the port for processes of this user that set SO_REUSEPORT. Raises PortInUseError."""
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound alone first, which fails beside anybody, sharing or not; opened only then, to those who share.
        holder.bind((host, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # That was for connections of an earlier run that still end; kept, it would let in another node.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        holder.close()
        raise PortInUseError(
            f"port {port} on {host} cannot be used: {error.strerror}; "
            f"end what listens there, or set {setting} (or NODE_HOST) to something else"
        ) from None
    return holder
