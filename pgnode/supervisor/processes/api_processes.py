"""The processes that serve the API: Gunicorn and the gRPC workers, with their sockets.

They are started with the node. At a restart in place they go on, so no call fails meanwhile; the new supervisor takes them over,
and then replaces them, since they still are of the version before. Where their ports are others now they are ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from pgnode.errors import ChildFailedError
from pgnode.supervisor.processes.child import Child
from pgnode.supervisor.processes.grpc_workers import GrpcWorkers
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance, InheritedProcess, close_all
from pgnode.supervisor.processes.ports import ListeningSockets
from pgnode.supervisor.processes.rest_workers import RestWorkers

log = structlog.get_logger(__name__)


class ApiProcesses:
    """Belongs to the supervisor's loop.

    Args:
        sockets: What Gunicorn listens on.
        gunicorn: Its master.
        grpc: The gRPC workers.
        inheritance: What the supervisor before left.
        serves_rest: Whether Gunicorn runs here; one that the supervisor before left is ended otherwise.
    """

    def __init__(
        self,
        sockets: ListeningSockets,
        gunicorn: Child,
        grpc: GrpcWorkers,
        inheritance: Inheritance = NOTHING,
        *,
        serves_rest: bool = True,
    ) -> None:
        self._serves_rest = serves_rest
        self._sockets = sockets
        self._gunicorn = gunicorn
        self._grpc = grpc
        self._inheritance = inheritance
        #: The workers of Gunicorn.
        self.rest = RestWorkers(gunicorn)
        #: Whether the processes of the supervisor before serve.
        self.taken_over = False

    def __repr__(self) -> str:
        return f"ApiProcesses({self._gunicorn!r}, {self._grpc!r})"

    async def open(self) -> None:
        """Take the ports, with the processes that serve there where the supervisor before left them.

        Raises:
            PortInUseError: Somebody else has a port.
        """
        left = self._inheritance
        same_ports = set(left.sockets) == {*self._sockets.names, *self._grpc.port_names}
        gunicorn = left.process(self._gunicorn.name)
        taken = gunicorn is not None and self._gunicorn.take_over(gunicorn)
        await self._grpc.take_over()
        if left.sockets and not same_ports:
            log.info("the API has other ports now: its processes are started anew")
            await self._end_processes()
            close_all(left.sockets.values())
        self.taken_over = taken and same_ports
        self._sockets.open(inherited=same_ports)
        self._grpc.reserve_port(inherited=same_ports)

    async def start(self) -> None:
        """Start all that does not run and wait until it takes calls.

        Raises:
            ChildFailedError: One did not come up.
        """
        if self._serves_rest and self._gunicorn.pid is None:
            await asyncio.gather(self._gunicorn.start(), self._grpc.start())
        else:
            await self._grpc.start()

    async def renew(self) -> str:
        """Replace what was taken over by processes of this version, each when its successor takes calls.

        Returns:
            What did not go well; "" for nothing. A process that is not replaced goes on.
        """
        renewing = [*([self._gunicorn.renew()] if self._serves_rest else []), self._grpc.renew()]
        outcomes = await asyncio.gather(*renewing, return_exceptions=True)
        troubles = []
        for outcome in outcomes:
            if isinstance(outcome, ChildFailedError):
                log.error("a process of the version before goes on", error=str(outcome))
                troubles.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return "; ".join(troubles)

    @property
    def pids(self) -> Mapping[str, int | None]:
        """The processes by their names in the log: Gunicorn's master and each gRPC worker; None for one that does not run."""
        master = {self._gunicorn.name: self._gunicorn.pid} if self._serves_rest else {}
        return {**master, **self._grpc.pids}

    def reread(self) -> None:
        """Have Gunicorn, where there is one, read GUNICORN_CONF again, and replace its workers; no call fails."""
        self.rest.reread()

    @property
    def grpc(self) -> GrpcWorkers:
        """The gRPC workers."""
        return self._grpc

    @property
    def added(self) -> Mapping[str, int]:
        """Kind -> how many more workers were asked for than the settings say; negative for fewer."""
        return {"rest": self.rest.added, "grpc": self._grpc.added}

    def hand_over(self) -> tuple[Mapping[str, int], list[InheritedProcess]]:
        """Leave sockets and processes to the next supervisor, as far as they run."""
        gunicorn = self._gunicorn.hand_over()
        processes = [*([gunicorn] if gunicorn is not None else []), *self._grpc.hand_over()]
        return {**self._sockets.hand_over(), **self._grpc.hand_over_port()}, processes

    async def stop(self) -> None:
        """End all in order, and give the ports back."""
        self._sockets.close()
        await self._end_processes()

    async def _end_processes(self) -> None:
        await asyncio.gather(self._gunicorn.stop(), self._grpc.stop())

    def kill_all(self) -> None:
        """End all by SIGKILL, without waiting."""
        self._gunicorn.kill_group()
        self._grpc.kill_all()
