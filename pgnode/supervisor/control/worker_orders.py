"""What an operator wants of the API workers: more, fewer, or others, while the node runs; no call fails.

It lasts until the next restart or reload, which take the settings: WEB_CONCURRENCY and GRPC_WORKERS are where a number is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from pgnode.errors import ChildFailedError
from pgnode.supervisor.control.messages import RefusedError
from pgnode.supervisor.processes.api_processes import ApiProcesses

log = structlog.get_logger(__name__)

#: Workers of a kind at most, as the settings allow.
WORKERS_MAX: Final[Mapping[str, int]] = {"rest": 256, "grpc": 64}

#: The setting that keeps their number.
SETTING: Final[Mapping[str, str]] = {"rest": "WEB_CONCURRENCY", "grpc": "GRPC_WORKERS"}

#: Their names in texts.
_SHOWN: Final[Mapping[str, str]] = {"rest": "REST", "grpc": "gRPC"}

_BUSY = "the workers are being changed already: try again when that is done"


class WorkerOrders:
    """Belongs to the supervisor's loop.

    Args:
        api: The processes.
    """

    def __init__(self, api: ApiProcesses) -> None:
        self._api = api
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"WorkerOrders({self._api!r})"

    async def order(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out what is wanted, and say what came of it.

        Args:
            values: ``do`` is "add", "remove" or "restart"; ``kind`` "rest" or "grpc" and ``count`` belong to the first two,
                ``pid`` (one worker; all without it) to the last.

        Returns:
            The workers, by kind: those there are now, and those that should have left and have not.

        Raises:
            RefusedError: It is not possible; nothing was changed, or what was is said.
        """
        if self._lock.locked():
            raise RefusedError(_BUSY)
        async with self._lock:
            before = await self._pids()
            match values.get("do"):
                case "add" | "remove" as what:
                    await self._change(str(what), before, values)
                    left: list[int] = []
                case "restart":
                    left = await self._restart(before, values.get("pid"))
                case _:
                    raise RefusedError("what is to be done is add, remove or restart")
            return {"before": before, "now": await self._pids(), "left": left, "added": dict(self._api.added)}

    async def _pids(self) -> dict[str, list[int]]:
        grpc = [pid for pid in self._api.grpc.pids.values() if pid is not None]
        return {"rest": await self._api.rest.pids(), "grpc": grpc}

    async def _change(self, what: str, before: Mapping[str, list[int]], values: Mapping[str, Any]) -> None:
        """Have more or fewer. Raises RefusedError."""
        kind, count = str(values.get("kind")), values.get("count")
        if kind not in before or not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise RefusedError("the kind of workers is rest or grpc, and their number 1 or more")
        there, name = len(before[kind]), _SHOWN[kind]
        if not there:
            raise RefusedError(f"no {name} worker runs: see {SETTING[kind]} and SERVICE_PROTOCOL")
        wanted = there + count if what == "add" else there - count
        have = f"there is 1 {name} worker" if there == 1 else f"there are {there} {name} workers"
        if wanted < 1:
            raise RefusedError(f"{have}: one has to stay")
        if wanted > WORKERS_MAX[kind]:
            raise RefusedError(f"{have}: {WORKERS_MAX[kind]} are allowed ({SETTING[kind]})")
        log.info("workers are changed", kind=kind, before=there, wanted=wanted)
        if kind == "rest":
            await self._api.rest.change(wanted - there)
            return
        for _ in range(count):
            try:
                await (self._api.grpc.add() if what == "add" else self._api.grpc.remove())
            except ChildFailedError as error:
                raise RefusedError(f"a gRPC worker did not come up: {error}") from None

    async def _restart(self, before: Mapping[str, list[int]], pid: object) -> list[int]:
        """Have one replaced, or all; return those that have not left in time. Raises RefusedError."""
        if pid is None:
            log.info("workers are replaced", rest=len(before["rest"]), grpc=len(before["grpc"]))
            left = await asyncio.gather(self._api.rest.restart_all(), self._api.grpc.restart())
            return [one for of_kind in left for one in of_kind]
        if not isinstance(pid, int) or pid not in (*before["rest"], *before["grpc"]):
            raise RefusedError(f"{pid!r:.20} is no pid of a worker of this node: pgnode workers shows them")
        log.info("a worker is replaced", pid=pid)
        if pid in before["grpc"]:
            return await self._api.grpc.restart(pid)
        return await self._api.rest.restart(pid)
