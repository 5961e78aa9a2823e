"""Each process is stopped for a while, as by a debugger, a machine that swaps, or a frozen container, and goes on.

Callers get an answer in time all the while: the one they ask for, or 503 or 504 with a sentence. Users stay connected.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from grpc import StatusCode, aio

from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import is_running
from pgnode.wire import service_pb2 as pb
from tests.faults.conftest import PATIENT, READ_OFTEN, Stage
from tests.faults.leftovers import TidyNode
from tests.faults.load import GRPC_OPTIONS, caller_email, grpc_pids, under_load
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually, pause
from tests.support.processes import core_pid, gunicorn_master_pid, stopped, valkey_pid, worker_pids

pytestmark = pytest.mark.timeout(400)

#: How long a process is stopped, in the suite and for the table.
STOPPED_SECONDS, WHOLE_STOPPED_SECONDS = 1.5, 20.0
#: The node's limit for a change: less than a process is stopped for at length.
WRITE_SECONDS = 15

PROCESSES: dict[str, Callable[[NodeProcess], int]] = {
    "the supervisor": lambda node: node.pid,
    "Gunicorn's master": gunicorn_master_pid,
    "a REST worker": lambda node: worker_pids(node)[0],
    "a gRPC worker": lambda node: grpc_pids(node)[0],
    "Valkey": valkey_pid,
    "the core": core_pid,
}
#: Killed by who watches over it when it is stopped for too long, and then replaced.
REPLACED = ("a REST worker", "a gRPC worker")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    env = {"WEB_CONCURRENCY": "2", "GRPC_WORKERS": "2", "WRITE_TIMEOUT_SECONDS": str(WRITE_SECONDS)}
    async with TidyNode(env=PATIENT | READ_OFTEN | env | {**node_faults.environment}) as running:
        yield running


@dataclass
class Answers:
    """What callers were told while a process was stopped."""

    counted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def of(self, call: Callable[[], Awaitable[object]]) -> None:
        """Take one answer; the caller's own limit, above the node's, is the most that it may take."""
        try:
            await call()
            self.counted["answered"] += 1
        except PanelError as error:
            self._refused(str(error.status), error.text, error.status in (503, 504))
        except aio.AioRpcError as error:
            known = error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
            self._refused(error.code().name, error.details() or "", known)
        except (NoAnswerError, OSError) as error:
            self.wrong.append(repr(error))

    def _refused(self, code: str, text: str, known: bool) -> None:
        self.counted[code] += 1
        if not known or not text:
            self.wrong.append(f"{code}: {text!r}")


async def keep_asking(stage: Stage, answers: Answers, end: asyncio.Event) -> None:
    """Read and change, over REST on new connections and over gRPC, until told to end; all calls have come back then."""
    node, panel = stage.node, stage.panel
    certificate = await asyncio.to_thread(node.ca_file.read_bytes)

    async def again(call: Callable[[], Awaitable[object]]) -> None:
        while not end.is_set():
            await answers.of(call)
            await pause()

    async def by_a_newcomer() -> None:
        async with node.panel() as newcomer:
            await newcomer.info()

    async def figures() -> None:
        async with node.panel() as newcomer:
            await newcomer.stats(pb.UserStat, caller_email(0))

    address = f"{node.host}:{node.grpc_port}"
    async with (
        GrpcNode(address, node.api_key, certificate, options=GRPC_OPTIONS) as over_grpc,
        asyncio.TaskGroup() as group,
    ):
        for call in (panel.backend_stats, by_a_newcomer, figures, lambda: over_grpc.call("GetBaseInfo")):
            group.create_task(again(call))


@pytest.mark.parametrize("who", PROCESSES)
@pytest.mark.fault("{who} stopped for 20 s under 30 callers, and continued")
async def test_stopped_for_a_while(stage: Stage, who: str, at_length: bool) -> None:
    node, answers, end = stage.node, Answers(), asyncio.Event()
    async with under_load(stage, before=50):
        pid = PROCESSES[who](node)
        core, others = core_pid(node), {name: find(node) for name, find in PROCESSES.items() if name not in REPLACED}
        asking = asyncio.create_task(keep_asking(stage, answers, end))
        async with stopped(pid):
            over = asyncio.get_running_loop().time() + (WHOLE_STOPPED_SECONDS if at_length else STOPPED_SECONDS)
            await eventually(
                lambda: asyncio.get_running_loop().time() > over or not is_running(pid), "that is over", 60
            )
        # From the moment at which it goes on, or is replaced.
        stage.trial.struck()
        end.set()
        await asking
    assert not answers.wrong, f"{answers.counted}, wrong: {answers.wrong[:5]}"
    assert core_pid(node) == core
    # Who hung for too long is replaced; nobody else is.
    assert {name: find(node) for name, find in PROCESSES.items() if name not in REPLACED} == others
    assert who in REPLACED or PROCESSES[who](node) == pid
