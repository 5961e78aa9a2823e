"""The API's processes: started, taken over, renewed; ended where the ports are others."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.errors import ChildFailedError
from pgnode.supervisor.processes.api_processes import ApiProcesses
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance, InheritedProcess

LEFT = InheritedProcess("gunicorn", 7, ("gunicorn",), output=-1)


class Parts:
    """Parts that note what they were asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gunicorn: Any = self._part("gunicorn", "start", "stop", "renew")
        self.gunicorn.signal = lambda number: self.calls.append(f"gunicorn.{number.name}")
        self.gunicorn.name, self.gunicorn.pid = "gunicorn", None
        self.gunicorn.take_over = self._takes_over
        self.gunicorn.hand_over = lambda: LEFT
        self.gunicorn.kill_group = lambda: self.calls.append("gunicorn.kill")
        self.grpc: Any = self._part("grpc", "start", "stop", "renew", "take_over")
        self.grpc.added = 2
        self.grpc.port_names = ["gRPC"]
        self.grpc.reserve_port = lambda inherited: self.calls.append(f"grpc.reserve_port {inherited}")
        self.grpc.hand_over = list
        self.grpc.hand_over_port = lambda: {"gRPC": 5}
        self.grpc.kill_all = lambda: self.calls.append("grpc.kill")
        self.sockets: Any = SimpleNamespace(
            names={"REST": ("SERVICE_PORT", 1)},
            open=lambda inherited: self.calls.append(f"sockets.open {inherited}"),
            close=lambda: self.calls.append("sockets.close"),
            hand_over=lambda: {"REST": 4},
        )

    def api(self, inheritance: Inheritance = NOTHING) -> ApiProcesses:
        return ApiProcesses(cast(Any, self.sockets), self.gunicorn, self.grpc, inheritance)

    def _takes_over(self, _left: InheritedProcess) -> bool:
        self.gunicorn.pid = 7
        self.calls.append("gunicorn.take_over")
        return True

    def _part(self, name: str, *methods: str) -> Any:
        def noting(method: str) -> Callable[[], Any]:
            async def call() -> None:
                self.calls.append(f"{name}.{method}")

            return call

        return SimpleNamespace(**{method: noting(method) for method in methods})


async def test_they_are_started_and_ended() -> None:
    parts = Parts()
    api = parts.api()
    await api.open()
    await api.start()
    assert not api.taken_over
    assert parts.calls == [
        "grpc.take_over",
        "sockets.open False",
        "grpc.reserve_port False",
        "gunicorn.start",
        "grpc.start",
    ]
    parts.calls.clear()
    await api.stop()
    api.kill_all()
    assert parts.calls == ["sockets.close", "gunicorn.stop", "grpc.stop", "gunicorn.kill", "grpc.kill"]
    assert "ApiProcesses" in repr(api)


async def test_workers_are_told_to_read_their_settings_again() -> None:
    parts = Parts()
    api = parts.api()
    api.reread()
    assert parts.calls == ["gunicorn.SIGHUP"]
    assert api.added == {"rest": 0, "grpc": 2}
    assert api.grpc is parts.grpc


async def test_they_are_left_taken_over_and_renewed() -> None:
    sockets, processes = Parts().api().hand_over()
    assert (sockets, processes) == ({"REST": 4, "gRPC": 5}, [LEFT])
    parts = Parts()
    api = parts.api(Inheritance(sockets=sockets, processes=tuple(processes)))
    await api.open()
    await api.start()
    assert api.taken_over
    assert await api.renew() == ""
    assert parts.calls == [
        *("gunicorn.take_over", "grpc.take_over", "sockets.open True", "grpc.reserve_port True", "grpc.start"),
        *("gunicorn.renew", "grpc.renew"),
    ]


async def test_with_other_ports_they_are_started_anew() -> None:
    parts = Parts()
    api = parts.api(Inheritance(sockets={"REST elsewhere": -1}, processes=(LEFT,)))
    await api.open()
    assert not api.taken_over
    assert parts.calls[2:] == ["gunicorn.stop", "grpc.stop", "sockets.open False", "grpc.reserve_port False"]


async def test_one_that_is_not_renewed_goes_on() -> None:
    parts = Parts()

    async def fails() -> None:
        raise ChildFailedError("gunicorn was not ready")

    parts.gunicorn.renew = fails
    assert await parts.api().renew() == "gunicorn was not ready"

    async def breaks() -> None:
        raise RuntimeError

    parts.grpc.renew = breaks
    with pytest.raises(RuntimeError):
        await parts.api().renew()


async def test_a_node_may_have_no_rest_worker() -> None:
    parts = Parts()
    parts.sockets.names, parts.grpc.pids = {}, {}
    api = ApiProcesses(cast(Any, parts.sockets), parts.gunicorn, parts.grpc, serves_rest=False)
    await api.open()
    await api.start()
    assert await api.renew() == ""
    assert api.pids == {}
    assert not [call for call in parts.calls if call.startswith("gunicorn")]


async def test_workers_of_the_supervisor_before_end_where_there_are_to_be_none() -> None:
    parts = Parts()
    parts.sockets.names, parts.grpc.port_names = {}, []
    left = Inheritance(sockets={"REST": -1}, processes=(LEFT,))
    api = ApiProcesses(cast(Any, parts.sockets), parts.gunicorn, parts.grpc, left, serves_rest=False)
    await api.open()
    assert not api.taken_over
    assert parts.calls[:4] == ["gunicorn.take_over", "grpc.take_over", "gunicorn.stop", "grpc.stop"]
