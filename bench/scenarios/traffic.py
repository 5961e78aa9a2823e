"""Traffic: statistics of users who all have moved bytes through the core, and what the ledger costs for them.

Every user connects to a plain VLESS inbound and moves a block each way (:mod:`bench.moving_users_process`), so counters, ledger,
store and snapshots are what they are in service. Processor time is that of all threads of a process, in nanoseconds, from the
kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from bench.load import Requests, Side, compare
from bench.moving_users import MovingUsers, MovingUsersError, cpu_seconds, descendants, silences_ms
from bench.moving_users_process import BLOCK_DOWN, BLOCK_UP
from bench.registry import Bench, scenario
from bench.report import Aim, Figure, Row, at_least, below
from bench.samples import median, percentile
from bench.scenarios.full import memory_mb
from bench.scenarios.reads import request_bytes
from bench.servers import bare_app, core_pid, node, started
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import POLLED, Polled
from pgnode.settings import Settings
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ask
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

USERS, MANY_USERS = 10_000, 100_000
TAG = "VLESS"
#: Of the bare app's rate: one user, all users. And of the rate with a tenth of the users.
ONE_AIM, ALL_AIM, SAME_AIM = 0.8, 0.7, 0.9
#: Share of users that moved bytes -> milliseconds that a reading with ``reset`` may take.
RESET_AIMS_MS = {0.01: 100.0, 1.0: 700.0}
#: Share of users who are online and move bytes, and milliseconds for one poll: supervisor, core, its loop's longest silence.
ONLINE_SHARE = 0.01
POLL_AIM_MS, POLL_CORE_AIM_MS, BLOCKED_AIM_MS = 60.0, 80.0, 50.0
POLLS = 8
#: Per cent of one processor while nothing moves, supervisor and workers together, and for how long that is looked at: the
#: reading of every counter that comes once a minute is in it.
IDLE_AIM_PERCENT, IDLE_SECONDS = 3.0, 62.0
SUPERVISOR_AIM_MB, WORKER_AIM_MB = 350.0, 150.0
#: How long the node may take to have counted what was moved. A reading of all counters comes every ten seconds or so.
SEEN_SECONDS = 60.0
SEEN_AGAIN_SECONDS = 0.5
CALL_TIMEOUT_SECONDS = 30.0


@scenario("traffic", f"statistics of {USERS:,} users who all moved bytes through the core", timeout_seconds=120)
async def traffic(bench: Bench) -> AsyncGenerator[Row, None]:
    async with stage(bench, USERS) as made:
        for row in await made.reads(bench):
            yield row
        async for row in made.resets(bench.rounds):
            yield row
        yield made.memory()


@scenario("traffic-many", f"the same with {MANY_USERS:,} users", timeout_seconds=300, default=False)
async def traffic_many(bench: Bench) -> AsyncGenerator[Row, None]:
    async with stage(bench, MANY_USERS) as made:
        async with stage(bench, USERS) as few:
            yield await made.beside(few, bench)
        for row in await made.reads(bench):
            yield row
        async for row in made.resets(bench.rounds):
            yield row
        yield made.memory()


@scenario(
    "traffic-cost",
    f"what the ledger of {MANY_USERS:,} users cost: while nothing moves, and for one poll",
    timeout_seconds=300,
    default=False,
)
async def traffic_cost(bench: Bench) -> AsyncGenerator[Row, None]:
    async with stage(bench, MANY_USERS) as made:
        yield made.memory()
        idle = await made.idle()
        yield idle
        async for row in made.polls(idle.ours[0].value / 100):
            yield row


@contextlib.asynccontextmanager
async def stage(bench: Bench, count: int) -> AsyncIterator[Stage]:
    """Starts a node with so many users, all of whom move bytes; and waits until it has counted them."""
    users = make_users(count, [TAG])
    inbound = make_inbound(TAG, "vless")
    config = make_config([inbound])
    # A line for each connection is not what is measured.
    config["log"]["access"] = "none"
    bench.say(f"starting a node with {count:,} users")
    async with node(bench) as beside, beside.panel(timeout_seconds=CALL_TIMEOUT_SECONDS) as panel:
        await started(bench, panel, config, users)
        async with MovingUsers(inbound["port"], users) as movers:
            made = Stage(beside, panel, movers, [user.email for user in users], bench.say)
            bench.say(f"{count:,} users move bytes")
            seconds = await movers.move(0, count)
            bench.facts["users moving bytes"] = f"{count / seconds:,.0f} connections a second"
            await made.seen(count)
            yield made


@dataclass
class Stage:
    """A node whose users have all moved bytes, and those users."""

    node: NodeProcess
    panel: PanelClient
    movers: MovingUsers
    emails: list[str]
    say: Callable[[str], None]

    async def reads(self, bench: Bench) -> list[Row]:
        """One user and all users, beside the bare app."""
        calls = {
            f"GET /stats, one of {len(self.emails):,} users": (self.one_user, ONE_AIM),
            f"GET /stats, all of {len(self.emails):,} users": (pb.StatRequest(type=pb.UsersStat), ALL_AIM),
        }
        answers = {what: await self._stats(message) for what, (message, _) in calls.items()}
        paths = {what: f"/{number}" for number, what in enumerate(calls)}
        rows = []
        async with bare_app(self.node, {paths[what]: body for what, body in answers.items()}) as bare_port:
            for what, (message, aim) in calls.items():
                self.say(what)
                request = request_bytes(self.panel, "/stats", message)
                bare = request.replace(b"/stats", paths[what].encode(), 1)
                with Requests([request]) as ours, Requests([bare]) as theirs:
                    found = await compare(
                        {"pgnode": Side(self.node.port, ours), "bare": Side(bare_port, theirs)},
                        connections=bench.connections,
                        seconds=bench.seconds,
                        rounds=bench.rounds,
                    )
                ratio = found["pgnode"].per_second / found["bare"].per_second
                rows.append(
                    Row(
                        f"{what} ({len(answers[what]):,} bytes)",
                        found["pgnode"].figures,
                        found["bare"].figures,
                        "bare Falcon",
                        at_least(ratio, aim, "of the bare app"),
                        note="; ".join(filter(None, (found["pgnode"].faults, found["bare"].faults))),
                    )
                )
        return rows

    async def beside(self, few: Stage, bench: Bench) -> Row:
        """One user's statistics here and at a node with fewer users."""
        self.say("GET /stats of one user, at both sizes")
        with (
            Requests([request_bytes(self.panel, "/stats", self.one_user)]) as ours,
            Requests([request_bytes(few.panel, "/stats", few.one_user)]) as theirs,
        ):
            found = await compare(
                {"many": Side(self.node.port, ours), "few": Side(few.node.port, theirs)},
                connections=bench.connections,
                seconds=bench.seconds,
                rounds=bench.rounds,
            )
        ratio = found["many"].per_second / found["few"].per_second
        return Row(
            f"GET /stats, one of {len(self.emails):,} users",
            found["many"].figures,
            found["few"].figures,
            f"of {len(few.emails):,}",
            at_least(ratio, SAME_AIM, f"of that with {len(few.emails):,}"),
        )

    async def resets(self, rounds: int) -> AsyncIterator[Row]:
        """All users with ``reset``, after a share of them has moved bytes that the node has counted."""
        await self._stats(pb.StatRequest(type=pb.UsersStat, reset=True))
        for share, limit_ms in RESET_AIMS_MS.items():
            count = round(len(self.emails) * share)
            samples, faults = [], set()
            for number in range(rounds):
                self.say(f"GET /stats with reset, {share:.0%} moved bytes, {number + 1} of {rounds}")
                first = number * count % len(self.emails)
                await self.movers.move(first, count)
                await self.seen(count)
                begun = time.monotonic()
                body = await self._stats(pb.StatRequest(type=pb.UsersStat, reset=True))
                samples.append((time.monotonic() - begun) * 1000)
                given = sum(stat.value for stat in pb.StatResponse.FromString(body).stats)
                if given != count * (BLOCK_UP + BLOCK_DOWN):
                    faults.add(f"{given:,} bytes were given of {count * (BLOCK_UP + BLOCK_DOWN):,}")
            yield Row(
                f"GET /stats with reset, {share:.0%} of {len(self.emails):,} users moved bytes ({len(body):,} bytes)",
                [Figure(median(samples), "ms", "p50"), Figure(max(samples), "ms", "longest")],
                aim=below(median(samples), limit_ms, "ms p50"),
                note="; ".join(faults),
            )

    async def idle(self) -> Row:
        """Processor time while nobody moves anything."""
        self.say(f"nothing moves for {IDLE_SECONDS:g} s")
        # What was given out last is counted as reported, and published.
        for _ in range(3):
            await self.polled()
        groups = descendants(self.node.pid)
        pids = {"supervisor": [self.node.pid], **groups, "core": [self.core_pid]}

        def used() -> dict[str, float]:
            return {name: sum(map(cpu_seconds, of_name)) for name, of_name in pids.items()}

        before, begun = used(), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - begun
        percent = {name: (now - before[name]) / seconds * 100 for name, now in used().items()}
        both = percent["supervisor"] + percent["workers"]
        return Row(
            f"nothing moves, {len(self.emails):,} users",
            [
                Figure(percent["supervisor"], "%", "supervisor"),
                Figure(percent["workers"], "%", f"{len(groups['workers'])} processes of the workers"),
                Figure(percent["core"], "%", "core"),
                Figure(percent["store"], "%", "store"),
            ],
            aim=below(both, IDLE_AIM_PERCENT, f"% of one core; {both:.1f}"),
        )

    async def polls(self, idle_share: float) -> AsyncIterator[Row]:
        """Polls in the node's own interval, each after everybody online has moved a block.

        A poll is everything from the end of the users' moving until half a second after its figures were published, less what
        the supervisor uses in that time when nothing moves (``idle_share`` of a processor). Its usual cost is the median; every
        now and then one reads all counters.
        """
        count = round(len(self.emails) * ONLINE_SHARE)
        self.say(f"{POLLS} polls, {count:,} users online")
        await self.movers.hold(0, count)
        ours, cores = [], []
        await self.polled()
        for _ in range(POLLS):
            await self.movers.pulse()
            begun = time.monotonic()
            before = cpu_seconds(self.node.pid), cpu_seconds(self.core_pid)
            await self.polled()
            await asyncio.sleep(0.5)
            idle = idle_share * (time.monotonic() - begun)
            ours.append((cpu_seconds(self.node.pid) - before[0] - idle) * 1000)
            cores.append((cpu_seconds(self.core_pid) - before[1]) * 1000)
        for what, samples, limit in (("supervisor", ours, POLL_AIM_MS), ("core", cores, POLL_CORE_AIM_MS)):
            yield Row(
                f"one poll, {count:,} of {len(self.emails):,} users online and changed: CPU of the {what}",
                [
                    Figure(median(samples), "ms", "usual"),
                    Figure(sum(samples) / len(samples), "ms", "mean"),
                    Figure(max(samples), "ms", "all counters"),
                ],
                aim=below(median(samples), limit, "ms"),
            )
        self.say("how long the supervisor's loop is silent")
        silences: list[float] = []
        for _ in range(POLLS // 2):
            await self.movers.pulse()
            probe = asyncio.create_task(asyncio.to_thread(silences_ms, self.ask, 6.0))
            await self.polled()
            silences += await probe
        await self.movers.release()
        longest = max(silences)
        yield Row(
            "the supervisor's loop meanwhile: time until it answers an operator",
            [Figure(longest, "ms", "longest"), Figure(percentile(silences, 0.99), "ms", "p99")],
            aim=below(longest, BLOCKED_AIM_MS, "ms"),
        )

    def memory(self) -> Row:
        """Proportional set sizes: what processes share counts in parts."""
        supervisor = memory_mb(self.node.pid)
        workers = [memory_mb(pid) for pid in descendants(self.node.pid)["workers"]]
        aim: Aim = below(supervisor, SUPERVISOR_AIM_MB, "MB supervisor") & below(
            max(workers), WORKER_AIM_MB, "MB worker"
        )
        return Row(
            f"memory, {len(self.emails):,} users who all moved bytes",
            [
                Figure(supervisor, "MB", "supervisor"),
                Figure(max(workers), "MB", "largest worker"),
                Figure(memory_mb(self.core_pid), "MB", "core"),
            ],
            aim=aim,
        )

    @property
    def one_user(self) -> pb.StatRequest:
        return pb.StatRequest(type=pb.UserStat, name=self.emails[len(self.emails) // 2])

    @property
    def core_pid(self) -> int:
        return core_pid(self.node)

    def ask(self) -> None:
        """Ask the supervisor something that it has in its memory."""
        ask(self.node.run_dir, messages.LOG_LEVEL, {}, seconds=SEEN_SECONDS)

    async def seen(self, count: int) -> None:
        """Wait until the node owes what ``count`` users moved. MovingUsersError where it does not come to that."""
        wanted, owed = count * (BLOCK_UP + BLOCK_DOWN), 0
        request = pb.StatRequest(type=pb.UsersStat)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_SECONDS):
                while owed != wanted:  # what was given out before may still be on show
                    await asyncio.sleep(SEEN_AGAIN_SECONDS)
                    owed = sum(stat.value for stat in pb.StatResponse.FromString(await self._stats(request)).stats)
        if owed != wanted:
            raise MovingUsersError(f"{count:,} users moved {wanted:,} bytes, the node owes {owed:,}")

    async def polled(self) -> None:
        """Wait for the figures of a poll that has begun from now on."""
        keys = Keys(Settings.model_fields["redis_prefix"].default)
        redis = Redis(unix_socket_path=str(self.node.run_dir / "valkey.sock"))
        begun = time.monotonic()
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as announced, asyncio.timeout(SEEN_SECONDS):
                await announced.subscribe(keys.snapshots_channel)
                async for message in announced.listen():
                    head, _, body = message["data"].partition(b"\n")
                    if head.startswith(POLLED.encode()):
                        age_ms = Polled.decode(body).age_ms
                        if age_ms is not None and age_ms / 1000 < time.monotonic() - begun:
                            return
        finally:
            await redis.aclose()

    async def _stats(self, message: pb.StatRequest) -> bytes:
        response = await self.panel.request("GET", "/stats", message.SerializeToString())
        if response.status != 200:
            raise MovingUsersError(f"GET /stats is {response.status}: {response.body[:200]!r}")
        return response.body
