"""Parts die, and callers misbehave, while real traffic is counted: every byte is given to a caller once."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError, Response
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.faults.conftest import PATIENT
from tests.faults.leftovers import TidyNode, tidy
from tests.faults.plugin import call_failed
from tests.faults.table import CHANGES, DROPPED, SECONDS
from tests.faults.traffic_checker import (
    Books,
    SlowCaller,
    check,
    fill,
    published_at,
    read_at,
    stored,
    stored_with_loans,
    totals,
    traffic,
)
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, stopped, valkey_pid, worker_pids

pytestmark = pytest.mark.timeout(400)

TAG = "VLESS"
EMAILS = ["one@traffic", "two@traffic", "three@traffic"]
INTERVAL_SECONDS = 0.5
#: How long an answer may be on its way: the caller that never reads is waited for. Less than the 6 s that a second one waits.
DELIVERY_SECONDS = 5.0
#: An answer with so many users does not fit into the buffers of a caller that does not read.
MANY = 15_000
DAY_SECONDS = 24 * 3600
#: More than eight deaths within a minute end the attempts to bring a core back; three rounds on one node have six.
CORES_KILLED = 2
#: A reading is not begun on the dot, and what it finds is from its beginning.
READING_SECONDS = 0.15
NOTHING_BREAKS = {SECONDS: "nothing is out of order at any time"}
TAKE = pb.StatRequest(type=pb.UsersStat, reset=True)


@dataclass
class Stage:
    """The node, its users' links, and the books that are kept beside it."""

    node: NodeProcess
    client: ClientCore
    panel: PanelClient
    books: Books
    #: How many seconds the node's clock is ahead; no file, no seconds.
    clock: Path
    trial: Trial
    fills: Iterator[int]
    #: Bytes that were lost in this test.
    lost: list[int]

    async def check(self, *, loss_bytes: int = 0) -> int:
        lost = await check(self.node, self.books, self.panel, loss_bytes=loss_bytes)
        self.books.written_off()
        self.trial.well()
        self.lost[0] += lost
        return lost

    def struck(self, pid: int) -> None:
        """Kill a process; all has to be well again after that."""
        kill(pid)
        self.trial.struck()

    async def owe_much(self) -> int:
        """The node owes so much that its answer is large, real traffic among it. Returns the bytes of all of it."""
        if sum(line.total != line.reported for line in (await stored(self.node)).values()) < MANY:
            await fill(self.node, self.books, MANY, f"fill{next(self.fills)}-", lambda number: 1_000_000 + number)
            # What was written last is the books' only copy: a supervisor that ends in good order would not know of it.
            kill(self.node.pid)
            await self.node.wait()
            await self.node.start()
            await eventually(self.panel.backend_stats, "the node serves again", 90, errors=(PanelError, NoAnswerError))
        for email in EMAILS:
            await self.books.move(self.client, email)
        owed = sum(self.books.moved.values()) - sum(self.books.given.values())

        async def counted() -> bool:
            return sum(line.total - line.reported for line in (await stored(self.node)).values()) == owed

        await eventually(counted, "all that was moved is counted", rest=True)
        return owed


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    clock = tmp_path_factory.mktemp("clock") / "seconds-ahead"
    config = make_config([make_inbound(TAG, "vless")])
    users = [make_user(email, [TAG]) for email in EMAILS]
    settings = {
        "WEB_CONCURRENCY": "2",
        "GRPC_WORKERS": "0",
        "STATS_UPDATE_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
        **PATIENT,
        "DELIVERY_TIMEOUT_SECONDS": str(DELIVERY_SECONDS),
        "PYTHONPATH": str(Path(__file__).parent / "clock"),
        "CLOCK_FILE": str(clock),
    }
    links = [
        link(config["inbounds"][0], user, name=user.email, source_address=f"127.0.0.{2 + number}")
        for number, user in enumerate(users)
    ]
    async with (
        Target() as target,
        TidyNode(env=settings) as node,
        node.panel() as panel,
        ClientCore(links, target) as client,
    ):
        await panel.start(config, users, timeout_seconds=60)
        yield Stage(node, client, panel, Books(), clock, Trial(""), itertools.count(), [0])


@pytest_asyncio.fixture(loop_scope="session")
async def billed(request: pytest.FixtureRequest, shared: Stage, trial: Trial) -> AsyncIterator[Stage]:
    """The stage with the figures of this test: transfers that broke are connections dropped."""
    books = shared.books
    transfers, broken, carried = books.transfers, len(books.broken), books.carried
    trial.note(CHANGES, "no users are changed here")
    stage = dataclasses.replace(shared, trial=trial, lost=[0])
    yield stage
    if not call_failed(request.node):
        await tidy(stage.node, trial)
    dropped = len(books.broken) - broken
    trial.count(DROPPED, dropped, dropped + books.transfers - transfers)
    trial.bytes(stage.lost[0], books.carried - carried)


@pytest.fixture
def node(shared: Stage) -> NodeProcess:
    """Its output is shown when a test fails."""
    return shared.node


@pytest.mark.fault("two callers take the traffic at once", unmeasured=NOTHING_BREAKS)
async def test_two_callers_at_once(billed: Stage, node: NodeProcess) -> None:
    async with node.panel(timeout_seconds=30) as one, node.panel(timeout_seconds=30) as other:
        for _ in range(6):
            for email in EMAILS:
                await billed.books.move(billed.client, email)
            answers = await asyncio.gather(*(panel.stats(pb.UsersStat, reset=True) for panel in (one, other)))
            for stats in answers:
                billed.books.took(stats)
    await billed.check()


@pytest.mark.fault("a caller leaves before the answer with traffic, and asks again", unmeasured=NOTHING_BREAKS)
async def test_caller_that_gives_up_at_once_and_asks_again(billed: Stage, node: NodeProcess) -> None:
    """Small answers, that may be on their way by then: what the kernel of the caller refused did not arrive."""
    for email in EMAILS * 2:
        await billed.books.move(billed.client, email)
        async with SlowCaller(node) as caller:
            await caller.ask(billed.panel, TAKE)
        billed.books.took(await billed.panel.stats(pb.UsersStat, reset=True))
    await billed.check()


@pytest.mark.fault(
    "node restarted in good order after traffic", core_ends="the node was told to end, and its core with it"
)
async def test_node_restarted(billed: Stage, node: NodeProcess) -> None:
    """What was moved a moment before has not been read from the core by then."""
    async with traffic(node, billed.books, billed.client, billed.panel) as load:
        await load.progress(20)
    billed.trial.struck()
    await node.stop()
    await node.start()
    await eventually(billed.panel.backend_stats, "the core is back", 90, errors=(PanelError, NoAnswerError))
    assert await billed.check() == 0


@pytest.mark.fault("supervisor killed under traffic")
async def test_supervisor_killed_under_traffic(billed: Stage, node: NodeProcess) -> None:
    """The core goes on, and what moves while nobody reads its counters is counted afterwards. Workers die with it."""
    core, broken = core_pid(node), list(billed.books.broken)
    async with traffic(node, billed.books, billed.client, billed.panel) as load:
        await load.progress(20)
        async with load.nothing_on_loan():
            billed.struck(node.pid)
            await node.wait()
        await node.start()
        await load.progress(20)
    assert core_pid(node) == core
    assert billed.books.broken == broken, "nobody is turned away while the core changes hands"
    assert await billed.check() == 0


@pytest.mark.fault("Valkey killed twice under traffic")
async def test_valkey_killed_under_traffic(billed: Stage, node: NodeProcess) -> None:
    async with traffic(node, billed.books, billed.client, billed.panel) as load:
        for _ in range(2):
            await load.progress(20)
            billed.struck(valkey_pid(node))
        await load.progress(20)
    assert await billed.check() == 0


@pytest.mark.fault("Valkey killed while the supervisor stands still, under traffic")
async def test_valkey_emptied_under_traffic(billed: Stage, node: NodeProcess) -> None:
    """It dies while the supervisor cannot restart it, and takes all that was on the bus with it: it has no files."""
    async with traffic(node, billed.books, billed.client, billed.panel) as load:
        await load.progress(20)
        valkey = valkey_pid(node)
        # Stopped, so that it does not start the bus again before that has gone.
        async with stopped(node.pid):
            billed.struck(valkey)
            await eventually(lambda: not is_running(valkey), "the bus has gone")
            assert not (node.state_dir / "store").exists()
        await load.progress(20)
    assert await billed.check() == 0


@pytest.mark.fault("the node's clock set a day forward and back under traffic")
async def test_clock_set_a_day_forward_and_back(billed: Stage, node: NodeProcess) -> None:
    """The node's own clock alone: the store and the callers keep theirs, as if they were on other hosts."""
    broken = list(billed.books.broken)
    async with traffic(node, billed.books, billed.client, billed.panel) as load:
        for ahead in (DAY_SECONDS, -DAY_SECONDS, 0):
            billed.trial.struck()
            await asyncio.to_thread(billed.clock.write_text, str(ahead), encoding="ascii")

            async def is_set(ahead: int = ahead) -> bool:
                return abs(await published_at(node) - time.time() - ahead) < DAY_SECONDS / 2

            await eventually(is_set, "the supervisor goes by the new time")
            await load.progress(20)
            assert list(await billed.panel.stats(pb.Outbounds)), "reads go on"
            billed.trial.well()
        assert load.refused == 0
    assert billed.books.broken == broken
    assert await billed.check() == 0


@pytest.mark.fault("core killed twice under traffic", core_ends="the core itself was killed")
async def test_core_killed_under_traffic(billed: Stage, node: NodeProcess) -> None:
    """What moved since the last reading is lost, and no more than that. Nobody asks, which would make readings more frequent."""
    allowed, broken = 0, len(billed.books.broken)
    before = sum(billed.books.moved.values())
    async with traffic(node, billed.books, billed.client, billed.panel, taking=False) as load:
        for _ in range(CORES_KILLED):
            await load.go_on(INTERVAL_SECONDS)
            moved_at = time.monotonic()

            async def read_since(moved_at: float = moved_at) -> bool:
                return await read_at(node) > moved_at

            await eventually(read_since, "some of it was read")
            pid, last_reading = core_pid(node), await read_at(node)
            billed.struck(pid)
            dead = {0, pid}

            def another(dead: set[int] = dead) -> bool:
                return core_pid(node) not in dead

            await eventually(another, "there is a new core")
            # Counted now, since what was under way when the core died may have arrived all the same.
            allowed += billed.books.moved_since(last_reading - READING_SECONDS)
        await load.go_on(INTERVAL_SECONDS)
    moved = sum(billed.books.moved.values()) - before
    lost = await billed.check(loss_bytes=allowed)
    assert allowed < moved
    print(
        f"{CORES_KILLED} cores killed: {lost:,} of {moved:,} bytes lost; {allowed:,} moved since the last reading before each; "
        f"{len(billed.books.broken) - broken} transfers broke"
    )


# --- large answers; last, since what they leave in the books makes every look at them slow -------------------------


async def stuck(billed: Stage, caller: SlowCaller) -> None:
    """The caller has asked, and has the answer's head; the rest of it waits for it to read.

    So it is on loan: what is answered was stored before. To look into the store takes longer, on a busy machine, than an answer
    may be on its way.
    """
    await caller.ask(billed.panel, TAKE)
    status, headers = await caller.connection.read_head(30)
    assert status == 200
    assert int(headers["content-length"]) > 500_000


@pytest.mark.fault("a caller closes after half of the answer with the traffic it is given")
async def test_caller_that_closes_after_half_the_answer(billed: Stage, node: NodeProcess) -> None:
    owed = await billed.owe_much()
    async with SlowCaller(node) as caller:
        await caller.ask(billed.panel, TAKE)
        status, headers = await caller.connection.read_head(30)
        assert status == 200
        async with asyncio.timeout(30):
            half = await caller.read(int(headers["content-length"]) // 2)
    billed.trial.struck()
    assert len(half) > 250_000

    async def owed_again() -> bool:
        lines, loans = await stored_with_loans(node)
        return loans == 0 and sum(line.total - line.reported for line in lines.values()) == owed

    await eventually(owed_again, "what did not arrive is owed again", rest=True)
    billed.trial.well()


@pytest.mark.fault("a caller never reads its answer, and asks again on another connection")
async def test_caller_that_never_reads_and_asks_again_at_once(billed: Stage, node: NodeProcess) -> None:
    """The second request waits until the first answer is cut off, and then holds all of it."""
    owed = await billed.owe_much()
    async with SlowCaller(node) as caller:
        await stuck(billed, caller)
        billed.trial.struck()
        response = await all_that_is_owed(billed)
        with pytest.raises(NoAnswerError):
            await caller.connection.read_body(200, {"content-length": str(len(response.body))}, 30)
    stats = pb.StatResponse.FromString(response.body).stats
    assert response.status == 200
    assert sum(totals([stats]).values()) == owed
    billed.books.took(stats)
    await billed.check()


async def all_that_is_owed(billed: Stage) -> Response:
    """The answer of a caller who waits for another one's, and asks once more where a busy machine took too long over that."""
    while True:
        async with SlowCaller(billed.node) as again:
            await again.ask(billed.panel, TAKE)
            response = await again.connection.read_response(60)
        if response.status != 200 or pb.StatResponse.FromString(response.body).stats:
            return response


@pytest.mark.fault("REST worker killed while it sends an answer with traffic")
async def test_worker_killed_while_it_sends(billed: Stage, node: NodeProcess) -> None:
    """The same request on a new connection gets the same numbers, once."""
    owed = await billed.owe_much()
    async with SlowCaller(node) as caller:
        await stuck(billed, caller)
        [pid] = [
            pid
            for pid in worker_pids(node)
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.raddr and connection.raddr.port == caller.connection.source_port
        ]
        billed.struck(pid)
        await eventually(lambda: not is_running(pid), "the worker has gone")
        response = await all_that_is_owed(billed)
        async with node.panel(timeout_seconds=30) as panel:
            second = await panel.stats(pb.UsersStat, reset=True)
        with pytest.raises(NoAnswerError):
            await caller.connection.read_body(200, {"content-length": "500000"}, 30)
    first = pb.StatResponse.FromString(response.body).stats
    assert response.status == 200
    assert sum(totals([first]).values()) == owed
    assert list(second) == []
    billed.books.took(first)
    await billed.check()
