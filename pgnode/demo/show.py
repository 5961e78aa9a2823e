"""``pgnode demo``: a private node, a panel, users and a target, all real, and what the node says about them.

The story is told in steps; every claim in it is a check that is printed with ✓ or ✗ and a sentence. The exit status is 0
only if every check held. Everything runs on loopback and on free ports, and is gone when the demo ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from pgnode.demo.report import Report, mark
from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.connection import LogViewer
from pgnode.testing.node import POLL_SECONDS, NodeFailedError, NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError, Traffic
from pgnode.testing.processes import running, summary, tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, HeldTransfer, TransferError, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb

#: The whole demo ends within this time, whatever happens.
TOTAL_TIMEOUT_SECONDS = 150.0
#: Users that the panel starts the node with.
USERS = 1_000
#: Users whose keys change in one chunked sync, and users of the full set afterwards.
CHUNKED_USERS = 300
FULL_SET_USERS = 5_000
#: How long figures of the node may lag behind what has happened.
FIGURES_TIMEOUT_SECONDS = 30.0
#: Lines of the node's log that are shown.
LOG_LINES = 8
#: ``pgnode run`` promises to end within this time.
END_SECONDS = 30.0

#: Who moves bytes through which inbound; each one keeps a transfer going all the time.
MOVERS = {
    "alice@demo": "VLESS",
    "bob@demo": "VMess",
    "carol@demo": "Trojan",
    "dave@demo": "Shadowsocks",
    "erin@demo": "Shadowsocks-2022",
}
#: Users that are changed while the movers' transfers go on.
NEWCOMER, REKEYED, REMOVED = "frank@demo", "grace@demo", "heidi@demo"
#: The inbound those three use.
CHANGED_INBOUND = "VLESS"


def run_demo(report: Report | None = None) -> int:
    """Run the demo and print it; 0 if every check held, 1 if not, 130 when interrupted."""
    report = report or Report(Console(highlight=False))
    try:
        return asyncio.run(Story(report).tell())
    except KeyboardInterrupt:
        report.console.print("\nInterrupted; everything the demo started has ended.")
        return 130


@dataclass
class _Sent:
    """Payload that went through the node for one user, in bytes."""

    inbound: str
    source_address: str
    up_bytes: int = 0
    down_bytes: int = 0


@dataclass
class Story:
    """One run of the demo, and what its users sent."""

    _report: Report
    _sent: dict[str, _Sent] = field(default_factory=dict)

    async def tell(self) -> int:
        """Everything, from the first line to the last; returns the exit status."""
        self._report.console.print(
            "[bold]pgnode demo[/]: a private node on free ports, played for by a panel and its users."
        )
        node = NodeProcess(env={"STATS_UPDATE_INTERVAL_SECONDS": "1"})
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_SECONDS), node:
                await self._with_node(node)
        except NodeFailedError as error:
            self._report.check(False, f"the node starts: {error}")
        except TimeoutError:
            self._report.check(False, f"all of this within {TOTAL_TIMEOUT_SECONDS:g} s")
            self._show_output(node)
        except (PanelError, NoAnswerError, TransferError, OSError) as error:
            self._report.check(False, f"went no further: {str(error) or type(error).__name__}")
            self._show_output(node)
        return self._report.end()

    async def _with_node(self, node: NodeProcess) -> None:
        self._report.step("The node")
        processes = tree(node.pid)
        self._report.check(
            True, f"it answers over TLS on {node.host}:{node.port}, {len(processes)} processes: {summary(processes)}"
        )
        async with node.panel() as panel, Target() as target, panel.logs() as viewer:
            inbounds = {str(item["tag"]): item for item in plain_inbounds()}
            users = self._users(list(inbounds))
            await self._start(panel, inbounds, users)
            async with self._client(inbounds, target) as client, contextlib.AsyncExitStack() as holding:
                transfers = [await holding.enter_async_context(client.hold(email)) for email in MOVERS]
                await self._move(client)
                await self._change_users(panel, client, users, transfers)
                await self._reconnect(node, panel, inbounds, transfers)
                await self._online(panel)
                await holding.aclose()
                for transfer in transfers:
                    self._count(transfer.link_name, transfer.sent_bytes, transfer.received_bytes)
            await self._counters(panel)
            await self._load(panel)
            await self._log(viewer)
            await self._stop(panel)
        await self._end(node, tree(node.pid))

    # The steps.

    def _users(self, tags: Sequence[str]) -> list[pb.User]:
        named = [make_user(email, tags) for email in (*MOVERS, REKEYED, REMOVED)]
        for number, email in enumerate((*MOVERS, REKEYED, REMOVED, NEWCOMER)):
            self._sent[email] = _Sent(MOVERS.get(email, CHANGED_INBOUND), f"127.0.0.{number + 2}")
        return named + make_users(USERS - len(named), tags)

    async def _start(self, panel: PanelClient, inbounds: Mapping[str, Any], users: Sequence[pb.User]) -> None:
        self._report.step("The panel starts it")
        begun = time.monotonic()
        info = await panel.start(make_config(inbounds.values()), users)
        self._report.check(
            info.started and info.core_version != "",
            f"POST /start: Xray {info.core_version} runs with {len(users):,} users in {len(inbounds)} inbounds "
            f"after {time.monotonic() - begun:.1f} s ({', '.join(inbounds)})",
        )

    def _client(self, inbounds: Mapping[str, Mapping[str, Any]], target: Target) -> ClientCore:
        links = []
        for email, sent in self._sent.items():
            user = make_user(email, [sent.inbound])
            links.append(link(inbounds[sent.inbound], user, name=email, source_address=sent.source_address))
        rekeyed = make_user(REKEYED, [CHANGED_INBOUND], key="new")
        links.append(
            link(
                inbounds[CHANGED_INBOUND],
                rekeyed,
                name=f"{REKEYED} new key",
                source_address=self._sent[REKEYED].source_address,
            )
        )
        return ClientCore(links, target)

    async def _move(self, client: ClientCore) -> None:
        self._report.step("Users move bytes through a client core, node and core to a target")
        sizes = {email: (200_000 * n, 1_000_000 * n) for n, email in enumerate((*MOVERS, REKEYED, REMOVED), start=1)}
        begun = time.monotonic()
        await asyncio.gather(*(client.move(email, up, down) for email, (up, down) in sizes.items()))
        for email, (up, down) in sizes.items():
            self._count(email, up, down)
        moved = sum(up + down for up, down in sizes.values())
        self._report.check(
            True,
            f"{len(sizes)} users moved {decimal(moved)} in {time.monotonic() - begun:.1f} s, over {len(MOVERS)} protocols",
        )

    async def _change_users(
        self, panel: PanelClient, client: ClientCore, users: Sequence[pb.User], transfers: Sequence[HeldTransfer]
    ) -> None:
        self._report.step(f"Users change while {len(transfers)} transfers go on")
        tags = list(users[0].inbounds)

        self._report.check(await client.refused(NEWCOMER), f"{NEWCOMER} is unknown and turned away")
        await panel.sync_user(make_user(NEWCOMER, tags))
        await client.move(NEWCOMER, 300_000, 700_000)
        self._count(NEWCOMER, 300_000, 700_000)
        self._report.check(True, f"PUT /user/sync: {NEWCOMER} is added and moves bytes")

        await panel.sync_user(make_user(REKEYED, tags, key="new"))
        await client.move(f"{REKEYED} new key", 100_000, 100_000)
        self._count(REKEYED, 100_000, 100_000)
        self._report.check(
            await client.refused(REKEYED), f"PUT /user/sync: {REKEYED} has a new key, the old one is turned away"
        )

        await panel.sync_user(make_user(REMOVED, []))
        self._report.check(await client.refused(REMOVED), f"PUT /user/sync: {REMOVED} is removed and turned away")

        begun = time.monotonic()
        await panel.sync_chunked([make_user(user.email, tags, key="new") for user in users[-CHUNKED_USERS:]])
        chunked_seconds = time.monotonic() - begun
        begun = time.monotonic()
        await panel.sync_users(_full_set(tags))
        full_seconds = time.monotonic() - begun
        await asyncio.gather(*(transfer.wait_rounds(3) for transfer in transfers if transfer.broken is None))
        self._report.check(
            True,
            f"PUT /users/sync/chunked: {CHUNKED_USERS} new keys in {chunked_seconds:.2f} s; "
            f"PUT /users/sync: a set of {FULL_SET_USERS:,} users in {full_seconds:.2f} s",
        )
        broken = [f"{transfer.link_name} {transfer.broken}" for transfer in transfers if transfer.broken is not None]
        silence = max(transfer.longest_silence_seconds for transfer in transfers)
        rounds = sum(transfer.rounds for transfer in transfers)
        self._report.check(
            not broken,
            "; ".join(broken)
            or f"none of the {len(transfers)} transfers broke: {rounds:,} blocks went there and back, "
            f"the longest wait for one was {silence * 1000:.0f} ms",
        )

    async def _reconnect(
        self,
        node: NodeProcess,
        panel: PanelClient,
        inbounds: Mapping[str, Mapping[str, Any]],
        transfers: Sequence[HeldTransfer],
    ) -> None:
        self._report.step("The panel reconnects: it stops the node and starts it again")
        before = {process.pid for process in tree(node.pid)}
        await panel.stop()
        stopped = not (await panel.info()).started
        info = await panel.start(make_config(inbounds.values()), _full_set(list(inbounds)))
        self._report.check(
            stopped and info.started and before == {process.pid for process in tree(node.pid)},
            "PUT /stop, then POST /start with the same config: the core was waiting and went on",
        )
        await asyncio.gather(*(transfer.wait_rounds(3) for transfer in transfers if transfer.broken is None))
        broken = [f"{transfer.link_name} {transfer.broken}" for transfer in transfers if transfer.broken is not None]
        self._report.check(not broken, "; ".join(broken) or f"none of the {len(transfers)} transfers noticed")

    async def _online(self, panel: PanelClient) -> None:
        async def all_seen() -> bool:
            for email in MOVERS:
                found[email] = await panel.online_addresses(email)
            return all(self._sent[email].source_address in found[email] for email in MOVERS)

        self._report.step("Who is online")
        found: dict[str, dict[str, int]] = {}
        seen = await _within(FIGURES_TIMEOUT_SECONDS, all_seen)
        table = Table("user", "addresses", "last seen", box=box.SIMPLE_HEAD)
        for email, addresses in found.items():
            when = max(addresses.values(), default=0)
            table.add_row(
                email, ", ".join(addresses) or "-", time.strftime("%H:%M:%S", time.localtime(when)) if when else "-"
            )
        self._report.console.print(table)
        self._report.check(seen, "GET /stats/user/online_ip: each of them is seen at the address it comes from")

    async def _counters(self, panel: PanelClient) -> None:
        async def all_counted() -> bool:
            for email in self._sent:
                counted[email] = await panel.traffic(email)
            return all(
                (counted[email].uplink_bytes, counted[email].downlink_bytes) == (sent.up_bytes, sent.down_bytes)
                for email, sent in self._sent.items()
            )

        self._report.step("What the node counted")
        counted: dict[str, Traffic] = {}
        exact = await _within(FIGURES_TIMEOUT_SECONDS, all_counted)
        table = Table("user", "inbound", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("sent", "counted", "received", "counted"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
        for email, sent in self._sent.items():
            traffic = counted[email]
            same = (traffic.uplink_bytes, traffic.downlink_bytes) == (sent.up_bytes, sent.down_bytes)
            figures = (sent.up_bytes, traffic.uplink_bytes, sent.down_bytes, traffic.downlink_bytes)
            table.add_row(email, sent.inbound, *(f"{figure:,}" for figure in figures), mark(same))
        self._report.console.print(table)
        self._report.check(
            exact, "GET /stats: every byte of payload is counted, for each user and each direction, no more and no less"
        )

        owed = sum(sent.up_bytes + sent.down_bytes for sent in self._sent.values())
        taken, again = [
            sum(stat.value for stat in await panel.stats(pb.UsersStat, reset=True)) for _ in ("first", "second")
        ]
        self._report.check(
            taken == owed and again == 0,
            f"GET /stats with reset: hands over {taken:,} bytes for all users at once; asked again, {again:,}",
        )

    async def _load(self, panel: PanelClient) -> None:
        self._report.step("Load")
        system = await panel.system_stats()
        core = await panel.backend_stats()
        self._report.console.print(
            f"  machine: {system.cpu_cores} cores at {system.cpu_usage:.0f} %, "
            f"memory {decimal(system.mem_used)} of {decimal(system.mem_total)}\n"
            f"  core: {core.num_goroutine} goroutines, {decimal(core.alloc)} in use, up for {core.uptime} s"
        )
        self._report.check(
            system.cpu_cores > 0 and 0 < system.mem_used <= system.mem_total and core.num_goroutine > 0,
            "GET /stats/system and /stats/backend: machine and core report figures",
        )

    async def _log(self, viewer: LogViewer) -> None:
        self._report.step("The log, as a viewer sees it")
        lines = await viewer.lines_within(1.0)
        self._report.lines([line for line in lines if "email: " in line][-LOG_LINES:])
        self._report.check(
            any("email: alice@demo" in line for line in lines),
            f"GET /logs: {len(lines)} lines came, those of the users' connections among them",
        )

    async def _stop(self, panel: PanelClient) -> None:
        self._report.step("The end")
        await panel.stop()
        info = await panel.info()
        self._report.check(not info.started, "PUT /stop: GET /info says so; the core waits a while for another start")

    async def _end(self, node: NodeProcess, processes: Sequence[psutil.Process]) -> None:
        begun = time.monotonic()
        code = await node.stop()
        elapsed = time.monotonic() - begun
        self._report.check(
            code == 0 and elapsed < END_SECONDS, f"SIGTERM: the node ended with exit code {code} after {elapsed:.1f} s"
        )

        left = [f"{process.pid} ({process.name()})" for process in running(processes)]
        self._report.check(
            not left, f"none of its {len(processes)} processes is left" + "".join(f", but {one}" for one in left)
        )

    # Helpers of the steps.

    def _count(self, email: str, up_bytes: int, down_bytes: int) -> None:
        self._sent[email].up_bytes += up_bytes
        self._sent[email].down_bytes += down_bytes

    def _show_output(self, node: NodeProcess) -> None:
        self._report.console.print("\nWhat the node printed:")
        self._report.lines(list(node.output)[-30:])


def _full_set(tags: Sequence[str]) -> list[pb.User]:
    """Return the users of the full set, those who move bytes among them."""
    kept = [make_user(email, tags) for email in (*MOVERS, NEWCOMER)]
    return kept + make_users(FULL_SET_USERS - len(kept), tags)


async def _within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> bool:
    """Whether ``holds`` becomes true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
