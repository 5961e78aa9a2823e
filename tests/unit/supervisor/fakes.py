"""What a supervisor consists of, with parts that only note that they were asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pgnode.settings import load
from pgnode.settings.handover import Handover
from pgnode.store.changes import Journal
from pgnode.store.state import StoredState
from pgnode.supervisor.control.progress import Progress
from pgnode.supervisor.core.log_sender import Counted
from pgnode.supervisor.host.node_log import NodeLog
from pgnode.supervisor.processes.inheritance import NOTHING, InheritedProcess
from pgnode.supervisor.tasks import CHANGES, CONTROL, LOGS, TaskRunner, TaskSpec
from pgnode.supervisor.traffic.inbound_stats import InboundStats

#: A child that is left to the next supervisor.
LEFT = InheritedProcess("gunicorn", 1234, ("gunicorn",), output=8)


class Notes:
    """Any object with any coroutine methods; notes their calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def __getattr__(self, method: str) -> Callable[..., Awaitable[None]]:
        async def call(*_arguments: object, **_named: object) -> None:
            self._calls.append(f"{self._name}.{method}")

        return call


class Parts:
    """What a supervisor consists of."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[str] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.handover = Handover(-1)
        self.settings = load(state_dir=str(folder), node_host="127.0.0.1", service_protocol="grpc", api_port=port)
        self.pump: Any = self._notes("pump")
        self.pump.unwatch, self.pump.close, self.pump.rest = lambda: None, lambda: None, b"half"
        self.pump.sender = SimpleNamespace(counted=Counted("one", 7))
        self.store = self._notes("store")
        self.store.open = self.returns(StoredState(origin="new"))
        self.bus = SimpleNamespace(
            server=self._notes("server"),
            redis=self._notes("redis"),
            answers=SimpleNamespace(drop=lambda: None),
            ownership=self._notes("ownership"),
        )
        self.bus.redis.info = self.returns({})
        self.committer, self.node = self._notes("committer"), self._notes("node")
        self.maintenance = self._notes("maintenance")
        self.maintenance.restore = lambda _became, *, bus_is_new: self.calls.append(f"bus is new: {bus_is_new}")
        self.certificate = SimpleNamespace(first=lambda: None)
        self.traffic = SimpleNamespace(**{name: self._notes(name) for name in ("figures", "payouts", "storing")})
        self.traffic.inbounds = InboundStats("auto", Journal())
        self.system_loop, self.figures_loop = self._notes("system"), self._notes("figures_loop")
        self.core = SimpleNamespace(core="fake core", known_version="1.0", running=None, version=self.returns("1.0"))
        self.cores = SimpleNamespace(selected=lambda: None, clear_up=lambda: None)
        self.processes = SimpleNamespace(**{name: self._notes(name) for name in ("pids", "valkey", "api")})
        self.processes.api.taken_over = False
        self.processes.api.reread = lambda: self.calls.append("reread")
        self.processes.api.hand_over = lambda: ({"SERVICE_PORT": 7}, [LEFT])
        self.processes.valkey.name = "valkey"
        self.processes.valkey.take_over_or_end = self._takes_over
        self.processes.valkey.hand_over = lambda: None
        self.processes.valkey.kill_group = lambda: self.calls.append("killed")
        self.processes.api.kill_all = lambda: self.calls.append("killed")
        self.inheritance = NOTHING
        self.snapshots = SimpleNamespace(last_revision=5)
        self.runner, self.progress, self.node_log = TaskRunner(), Progress(), NodeLog("info")
        self.tasks: dict[TaskSpec, Callable[[], Awaitable[object]]] = {
            CONTROL: asyncio.Event().wait,
            LOGS: asyncio.Event().wait,
            CHANGES: asyncio.Event().wait,
        }

    async def _takes_over(self, left: InheritedProcess | None) -> bool:
        return left is not None

    def _notes(self, name: str) -> Any:
        return Notes(name, self.calls)

    @staticmethod
    def returns(value: object) -> Callable[..., Awaitable[object]]:
        async def call(*_arguments: object) -> object:
            return value

        return call
