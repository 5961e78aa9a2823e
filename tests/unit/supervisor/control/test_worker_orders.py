"""What an operator wants of the workers: done, or refused with a sentence."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.errors import ChildFailedError
from pgnode.supervisor.control.messages import RefusedError
from pgnode.supervisor.control.worker_orders import WORKERS_MAX, WorkerOrders


class Api:
    """Processes that note what they were asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.workers = {"rest": [1, 2], "grpc": [9]}
        self.fails = False
        self.added = {"rest": 1, "grpc": 0}
        self.rest = SimpleNamespace(
            pids=self._rest_pids, change=self._noting("change"), restart_all=self._left([5]), restart=self._left([])
        )
        self.grpc = SimpleNamespace(add=self._add, remove=self._noting("remove"), restart=self._left([]))
        self.grpc.pids = {"gRPC worker 1": 9, "gRPC worker 2": None}

    async def _rest_pids(self) -> list[int]:
        return list(self.workers["rest"])

    async def _add(self) -> None:
        self.calls.append("add")
        if self.fails:
            raise ChildFailedError("no luck")

    def _noting(self, name: str) -> Any:
        async def call(*arguments: object) -> None:
            self.calls.append((name, *arguments) if arguments else name)

        return call

    def _left(self, left: list[int]) -> Any:
        async def call(*arguments: object) -> list[int]:
            self.calls.append(("restart", *arguments))
            return left

        return call


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def orders(api: Api) -> WorkerOrders:
    return WorkerOrders(cast(Any, api))


async def test_more_and_fewer(api: Api, orders: WorkerOrders) -> None:
    answer = await orders.order({"do": "add", "kind": "rest", "count": 3})
    assert answer == {
        "before": {"rest": [1, 2], "grpc": [9]},
        "now": {"rest": [1, 2], "grpc": [9]},
        "left": [],
        "added": {"rest": 1, "grpc": 0},
    }
    await orders.order({"do": "remove", "kind": "rest", "count": 1})
    await orders.order({"do": "add", "kind": "grpc", "count": 2})
    api.grpc.pids = {"1": 9, "2": 10}
    await orders.order({"do": "remove", "kind": "grpc", "count": 1})
    assert api.calls == [("change", 3), ("change", -1), "add", "add", "remove"]
    assert "WorkerOrders" in repr(orders)


async def test_replaced(api: Api, orders: WorkerOrders) -> None:
    assert (await orders.order({"do": "restart"}))["left"] == [5]
    await orders.order({"do": "restart", "pid": 2})
    await orders.order({"do": "restart", "pid": 9})
    assert api.calls == [("restart",), ("restart",), ("restart", 2), ("restart", 9)]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({}, "add, remove or restart"),
        ({"do": "add", "kind": "rest"}, "their number 1 or more"),
        ({"do": "add", "kind": "rest", "count": True}, "their number 1 or more"),
        ({"do": "add", "kind": "other", "count": 1}, "rest or grpc"),
        ({"do": "remove", "kind": "rest", "count": 2}, "there are 2 REST workers: one has to stay"),
        ({"do": "remove", "kind": "grpc", "count": 1}, "there is 1 gRPC worker: one has to stay"),
        ({"do": "add", "kind": "grpc", "count": WORKERS_MAX["grpc"]}, "64 are allowed"),
        ({"do": "restart", "pid": 3}, "3 is no pid of a worker"),
        ({"do": "restart", "pid": "2"}, "no pid of a worker"),
    ],
)
async def test_what_is_not_possible_is_refused(
    api: Api, orders: WorkerOrders, values: dict[str, Any], error: str
) -> None:
    with pytest.raises(RefusedError, match=error):
        await orders.order(values)
    assert api.calls == []


async def test_where_none_runs_that_is_told(api: Api, orders: WorkerOrders) -> None:
    api.grpc.pids = {}
    with pytest.raises(RefusedError, match="no gRPC worker runs: see GRPC_WORKERS"):
        await orders.order({"do": "add", "kind": "grpc", "count": 1})


async def test_one_that_does_not_come_up_is_told(api: Api, orders: WorkerOrders) -> None:
    api.fails = True
    with pytest.raises(RefusedError, match="a gRPC worker did not come up: no luck"):
        await orders.order({"do": "add", "kind": "grpc", "count": 3})
    assert api.calls == ["add"]


async def test_one_order_at_a_time(api: Api, orders: WorkerOrders) -> None:
    going, done = asyncio.Event(), asyncio.Event()

    async def slow(_by: int) -> None:
        going.set()
        await done.wait()

    api.rest.change = slow
    first = asyncio.create_task(orders.order({"do": "add", "kind": "rest", "count": 1}))
    await going.wait()
    with pytest.raises(RefusedError, match="being changed already"):
        await orders.order({"do": "restart"})
    done.set()
    await first
