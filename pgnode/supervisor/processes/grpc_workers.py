"""The gRPC workers: how many there are, and which process is in which slot.

Each has a slot (1, 2, …) that is always filled: a process that ends is brought back, one that hangs is killed, and one that
was told to end does so when its replacement has the port, however long that takes and however often it is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING

import structlog

from pgnode.errors import ChildFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import PROCESS
from pgnode.settings.handover import Handover
from pgnode.supervisor.processes.grpc_process import WORKER_MODULE, GrpcProcess
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance, InheritedProcess
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.supervisor.processes.ports import reserve_port
from pgnode.supervisor.processes.restarts import Restarter

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds that workers have to be replaced.
REPLACED_SECONDS = 60.0

#: Seconds between two looks at workers that are to be replaced.
POLL_SECONDS = 0.05

#: Names of workers in the log; a number follows.
_PREFIX = "grpc-"


def _number(name: str) -> int:
    number = name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else 0


class GrpcSlot:
    """A place for one worker after the other. The restart loop keeps it filled.

    Args:
        number: Its number, for the log.
        make: Makes a process that was not started.
    """

    def __init__(self, number: int, make: Callable[[], GrpcProcess]) -> None:
        self.name = f"gRPC worker {number}"
        self._make = make
        self._process: GrpcProcess | None = None
        #: Processes that were replaced and finish their last calls, with the tasks that wait for them.
        self._leaving: dict[GrpcProcess, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"GrpcSlot({self._process}, {len(self._leaving)} leaving)"

    @property
    def processes(self) -> list[GrpcProcess]:
        """All that may run."""
        return [*([self._process] if self._process is not None else []), *self._leaving]

    async def start(self) -> None:
        """Fill the slot with a process that takes calls. One that leaves and still runs ends then.

        Raises:
            ChildFailedError: It did not come up.
        """
        if self._process is not None and self.is_filled:
            await self._replace(self._process)
            return
        if self._process is not None:
            # It may have ended while nobody waited for that.
            self._process.forget()
        self._process = self._made()
        await self._process.start()

    def take_over(self, process: GrpcProcess) -> bool:
        """Fill the slot with a process that the supervisor before left; returns whether there is one."""
        if process.take_over():
            self._process = process
        return self.is_filled

    @property
    def pid(self) -> int | None:
        """The process that runs in it; None for none."""
        return self._process.pid if self._process is not None else None

    @property
    def is_filled(self) -> bool:
        """Whether a process runs in it."""
        return self.pid is not None

    def hand_over(self) -> list[InheritedProcess]:
        """Leave its process to the next supervisor; those that were replaced are ended."""
        kept = self._process.hand_over() if self._process is not None else None
        for process in self.processes:
            if process is not self._process or kept is None:
                process.request_stop()
        return [kept] if kept is not None else []

    async def renew(self) -> None:
        """Replace the process that was taken over; start one where there is none.

        Raises:
            ChildFailedError: None came up. The one that was there goes on.
        """
        if self._process is None:
            await self.start()
        elif not await self._replaced(self._process):
            raise ChildFailedError(f"{self.name} was not replaced; the one before goes on")

    async def ended(self) -> str:
        """Wait until the slot has to be filled again; a process that leaves is replaced meanwhile.

        Where its replacement does not come up it goes on taking calls, and :meth:`start` tries again.

        Returns:
            What the log says of the last process.
        """
        while True:
            process = self._process
            assert process is not None, "not started"
            reason = await process.ended_or_leaving()
            if reason is not None:
                return reason
            if not await self._replaced(process):
                return "it was told to end, and goes on: its replacement did not come up"

    def _made(self) -> GrpcProcess:
        """Make a process that was not started. Raises ChildFailedError."""
        try:
            return self._make()
        except OSError as error:
            raise ChildFailedError(f"{self.name} cannot be started: {error.strerror or error}") from None

    async def stop(self, *, others_serve: bool = False) -> None:
        """End all of its processes.

        Args:
            others_serve: Whether their callers find a worker in another slot.
        """
        await end_tasks(list(self._leaving.values()))
        await asyncio.gather(*(process.stop(others_serve=others_serve) for process in self.processes))

    async def _replaced(self, old: GrpcProcess) -> bool:
        """Start a process in place of ``old``, and let ``old`` end; False when none came up."""
        try:
            await self._replace(old)
        except ChildFailedError as error:
            log.warning("child not started", child=self.name, error=str(error))
            return False
        return True

    async def _replace(self, old: GrpcProcess) -> None:
        """Start a process in place of ``old``, and let ``old`` end. Raises ChildFailedError, and ``old`` goes on."""
        new = self._made()
        log.info("worker leaves, replacing it", child=old.name, pid=old.pid, by=new.name)
        await new.start()
        self._process = new
        self.let_go(old)

    def let_go(self, process: GrpcProcess) -> None:
        """End a process while another one serves; it finishes its last calls."""
        self._leaving[process] = asyncio.create_task(self._end(process))

    async def _end(self, process: GrpcProcess) -> None:
        await process.stop(others_serve=True)
        del self._leaving[process]


class GrpcWorkers:
    """All of them. Belongs to the supervisor's loop.

    Args:
        settings: The node's settings.
        handover: How workers get them.
        pids: Where pids are noted.
        restarter: Brings workers back.
        module: The module that a worker runs.
        inheritance: What the supervisor before left.
        tell: Is given what workers say.
    """

    def __init__(
        self,
        settings: Settings,
        handover: Handover,
        pids: PidRegistry,
        restarter: Restarter,
        *,
        module: str = WORKER_MODULE,
        inheritance: Inheritance = NOTHING,
        tell: Callable[[Entry], None] = PROCESS.write,
    ) -> None:
        self._settings = settings
        self._restarter = restarter
        self._reserved: socket.socket | None = None
        self._left = [one for one in inheritance.processes if one.channel >= 0]
        numbers = count(1 + max((_number(one.name) for one in self._left), default=0))

        def make(left: InheritedProcess | None = None) -> GrpcProcess:
            name = f"{_PREFIX}{next(numbers)}" if left is None else left.name
            return GrpcProcess(name, handover, pids, module=module, left=left, tell=tell)

        self._make = make
        self._inheritance = inheritance
        self._slots = [GrpcSlot(number + 1, make) for number in range(settings.grpc_worker_count)]
        #: Keeps each slot filled, while somebody keeps them all.
        self._keeping: dict[GrpcSlot, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"GrpcWorkers({self._slots})"

    def reserve_port(self, *, inherited: bool = False) -> None:
        """Hold the port for this node's workers alone.

        Args:
            inherited: Whether the socket of the supervisor before is used.

        Raises:
            PortInUseError: Somebody else has it.
        """
        if self._slots:
            self._reserved = (
                socket.socket(fileno=self._inheritance.sockets[self._port_name])
                if inherited
                else reserve_port(self._settings.node_host, *self._settings.grpc_listen)
            )

    @property
    def _port_name(self) -> str:
        """What the socket that holds the port is called when it is handed over."""
        return f"gRPC {self._settings.node_host} {self._settings.grpc_listen[1]}"

    @property
    def port_names(self) -> list[str]:
        """What is handed over of the port."""
        return [self._port_name] if self._slots else []

    async def start(self) -> None:
        """Start all and wait until they take calls.

        Raises:
            ChildFailedError: One did not come up.
        """
        await asyncio.gather(*(slot.start() for slot in self._slots if not slot.is_filled))

    async def take_over(self) -> None:
        """Take over the workers that the supervisor before left; those for which there is no slot are ended."""
        left = [self._make(one) for one in self._left]
        for slot in self._slots:
            while left and not slot.take_over(left.pop(0)):
                pass
        for process in left:
            if not process.take_over():
                continue
            if self._slots:
                # Its last calls are answered by the supervisor that is only starting.
                self._slots[0].let_go(process)
            else:
                await process.stop()

    def hand_over_port(self) -> Mapping[str, int]:
        """Leave the port to the next supervisor."""
        reserved, self._reserved = self._reserved, None
        return {} if reserved is None else {self._port_name: reserved.detach()}

    def hand_over(self) -> list[InheritedProcess]:
        """Leave the workers to the next supervisor."""
        return [one for slot in self._slots for one in slot.hand_over()]

    async def renew(self) -> None:
        """Replace the workers that were taken over, each by one that takes calls before the other ends.

        Raises:
            ChildFailedError: One was not replaced; it goes on.
        """
        await asyncio.gather(*(slot.renew() for slot in self._slots))

    @property
    def pids(self) -> Mapping[str, int | None]:
        """The process in each slot; None where there is none."""
        return {slot.name: slot.pid for slot in self._slots}

    @property
    def added(self) -> int:
        """How many more slots there are than the settings say; negative for fewer."""
        return len(self._slots) - self._settings.grpc_worker_count

    async def keep(self) -> None:
        """Keep every slot filled, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for slot in self._slots:
                    self._keep(slot)
                # Without a slot there is nothing to wait for.
                await asyncio.Event().wait()
        finally:
            self._group, self._keeping = None, {}

    def _keep(self, slot: GrpcSlot) -> None:
        if self._group is not None:
            self._keeping[slot] = self._group.create_task(self._restarter.keep(slot))

    async def add(self) -> None:
        """Have one more.

        Raises:
            ChildFailedError: It did not come up, and there are as many as before.
        """
        slot = GrpcSlot(len(self._slots) + 1, self._make)
        await slot.start()
        self._slots.append(slot)
        self._keep(slot)

    async def remove(self) -> None:
        """Have one fewer: the last one ends, after the calls that are under way; one stays in any case."""
        if len(self._slots) < 2:
            return
        slot = self._slots.pop()
        if (keeping := self._keeping.pop(slot, None)) is not None:
            await end_tasks([keeping])
        await slot.stop(others_serve=True)

    async def restart(self, pid: int | None = None) -> list[int]:
        """Have a worker, or all of them, replaced, each by one that takes calls before the other ends.

        Args:
            pid: The worker; None for all.

        Returns:
            Those that were not replaced in time; they go on.
        """
        asked = [found for found in self.pids.values() if found is not None and pid in (None, found)]
        for found in asked:
            # It asks for its replacement itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(found, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPLACED_SECONDS):
                while not self._replaced_all(asked):  # noqa: ASYNC110 - slots tell nobody
                    await asyncio.sleep(POLL_SECONDS)
        return [found for found in asked if found in self.pids.values()]

    def _replaced_all(self, pids: list[int]) -> bool:
        """Whether none of these processes is in a slot, and every slot is filled."""
        now = set(self.pids.values())
        return None not in now and not now & set(pids)

    async def stop(self) -> None:
        """End all of them, and give the port back."""
        await asyncio.gather(*(slot.stop() for slot in self._slots))
        if self._reserved is not None:
            self._reserved.close()

    def kill_all(self) -> None:
        """End all of them by SIGKILL, without waiting."""
        for slot in self._slots:
            for process in slot.processes:
                process.kill_group()
