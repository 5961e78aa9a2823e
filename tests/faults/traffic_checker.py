"""What users moved, held against what the node counted and what callers were given: nothing twice, nothing lost.

Per user and direction three sums are kept: bytes of transfers that went through, bytes of transfers that broke (of which the core
may have counted any part), and bytes in answers that reached a caller. The fourth is the node's own, its books in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from socket import AF_INET, SO_RCVBUF, SOCK_STREAM, SOL_SOCKET, socket

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import POLLED, SYSTEM, Polled
from pgnode.settings import load
from pgnode.store.rows import LedgerRow
from pgnode.testing.connection import Connection
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PROTOBUF, NoAnswerError, PanelClient, PanelError
from pgnode.testing.traffic import ClientCore, TransferError
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.support.stored import stored_state, write_counters

#: Bytes of one transfer of a mover.
UPLOAD_BYTES, DOWNLOAD_BYTES = 20_000, 50_000

#: How the addresses of users end who are not desired any more.
GONE = "@gone"

#: Generous: after a fault the node may first have to bring core and store back.
SETTLED_SECONDS = 90.0

#: (e-mail, "uplink" or "downlink").
CounterKey = tuple[str, str]


@dataclass
class Books:
    """All that is known of the traffic from outside the node; bytes."""

    moved: Counter[CounterKey] = field(default_factory=Counter)
    #: Of transfers that broke, or are under way.
    uncertain: Counter[CounterKey] = field(default_factory=Counter)
    given: Counter[CounterKey] = field(default_factory=Counter)
    #: How transfers broke.
    broken: list[str] = field(default_factory=list)
    #: (monotonic seconds, bytes carried so far) at the end of each transfer.
    history: deque[tuple[float, int]] = field(default_factory=deque)
    #: Transfers that went through, and their bytes, since the beginning.
    transfers: int = 0
    carried: int = 0

    def took(self, stats: Iterable[pb.Stat]) -> None:
        """These were in an answer that arrived."""
        for stat in stats:
            self.given[stat.name, stat.type] += stat.value

    async def move(
        self, client: ClientCore, email: str, upload_bytes: int = UPLOAD_BYTES, download_bytes: int = DOWNLOAD_BYTES
    ) -> None:
        """One transfer of the user whose link has the e-mail as its name. TransferError when it broke."""
        sizes = Counter({(email, "uplink"): upload_bytes, (email, "downlink"): download_bytes})
        # Not by += and -=, which walk through all users.
        self.uncertain.update(sizes)
        try:
            await client.move(email, upload_bytes, download_bytes)
        except TransferError as error:
            self.broken.append(str(error))
            raise
        self.uncertain.subtract(sizes)
        self.moved.update(sizes)
        self.transfers += 1
        self.carried += sizes.total()
        self.history.append((time.monotonic(), self.carried))

    def written_off(self) -> None:
        """All is at rest: what was given is what moved from now on, and what a core took with it is no part of it."""
        self.moved, self.uncertain = Counter(self.given), Counter()

    def moved_since(self, moment: float) -> int:
        before = [carried for at, carried in self.history if at < moment]
        return self.carried - (before[-1] if before else 0)


async def stored(node: NodeProcess) -> dict[CounterKey, LedgerRow]:
    """The lines of users in the node's own books."""
    return (await stored_with_loans(node))[0]


async def stored_with_loans(node: NodeProcess) -> tuple[dict[CounterKey, LedgerRow], int]:
    """The same, and how many parts of answers there are whose fate the node does not know; as of one moment."""
    state = await asyncio.to_thread(stored_state, node)
    found = {}
    for name, row in state.counters.items():
        if name.startswith("user>>>"):
            _, email, _, direction = name.split(">>>")
            found[email, direction] = row
    return found, len(state.loans)


async def published_at(node: NodeProcess) -> float:
    """When the node last published its system figures, Unix seconds of its own clock."""
    redis = connect(load(state_dir=node.state_dir).bus_url, connections=1)
    try:
        return int(await redis.hget(Keys("pgnode").snapshot(SYSTEM), "at_ms") or 0) / 1000
    finally:
        await redis.aclose()


async def read_at(node: NodeProcess) -> float:
    """When the last reading of the core's counters that was published began, monotonic seconds."""
    redis = connect(load(state_dir=node.state_dir).bus_url, connections=1)
    try:
        body = await redis.hget(Keys("pgnode").snapshot(POLLED), "body")
    finally:
        await redis.aclose()
    assert isinstance(body, bytes)
    # In this order: a pause between the two makes the moment earlier, and never later.
    now = time.monotonic()
    age = Polled.decode(body).age_seconds(time.time() * 1000)
    return now - age if age is not None else 0.0


def forgotten(books: Books, lines: dict[CounterKey, LedgerRow], key: CounterKey) -> bool:
    """Whether a user who is not desired was left out of the ledger, as it is some time after all of its bytes were given."""
    return key not in lines and key[0].endswith(GONE) and books.given[key] == books.moved[key]


def differences(books: Books, lines: dict[CounterKey, LedgerRow], open_loans: int, loss_bytes: int = 0) -> list[str]:
    """What does not fit; empty when all is well. ``loss_bytes`` may be missing from what was counted, over all users."""
    faults = [f"{open_loans} parts of answers are on loan"] if open_loans else []
    missing = 0
    for key in sorted({*books.moved, *books.uncertain, *books.given, *lines}):
        if forgotten(books, lines, key):
            continue
        line = lines.get(key, LedgerRow(0, 0, 0, 0))
        if line.reported != books.given[key]:
            faults.append(f"{key}: {line.reported} are booked as reported, callers were given {books.given[key]}")
        if line.total > books.moved[key] + books.uncertain[key]:
            faults.append(f"{key}: {line.total} counted, {books.moved[key]} moved, {books.uncertain[key]} uncertain")
        missing += max(0, books.moved[key] - line.total)
    if missing > loss_bytes:
        faults.append(f"{missing} bytes moved and were not counted, {loss_bytes} may be missing")
    return faults


async def check(node: NodeProcess, books: Books, panel: PanelClient, *, loss_bytes: int = 0) -> int:
    """The node comes to rest with books that fit, and hands out the rest. Returns the bytes lost. AssertionError."""
    faults: list[str] = []

    async def fits() -> bool:
        faults[:] = ["the node's store does not answer"]
        faults[:] = differences(books, *await stored_with_loans(node), loss_bytes)
        return not faults

    async def rest_taken() -> bool:
        books.took(await panel.stats(pb.UsersStat, reset=True))
        return True

    try:
        await eventually(fits, "books, callers and users agree", SETTLED_SECONDS, errors=BUS_ERRORS, rest=True)
        await eventually(rest_taken, "the rest is handed out", SETTLED_SECONDS, errors=(PanelError,))
        await eventually(
            fits, "books, callers and users agree at the end", SETTLED_SECONDS, errors=BUS_ERRORS, rest=True
        )
    except AssertionError as error:
        raise AssertionError(f"{error}; {len(faults)} faults:\n" + "\n".join(faults[:10])) from None
    lines = await stored(node)
    owed = {key: line for key, line in lines.items() if line.total != line.reported}
    assert not owed, f"the rest was handed out, and yet is owed: {list(owed.items())[:5]}"
    given = {key: value for key, value in books.given.items() if value and not forgotten(books, lines, key)}
    assert {key: line.total for key, line in lines.items() if line.total} == given
    return sum((books.moved - books.given).values())


@contextlib.asynccontextmanager
async def traffic(
    node: NodeProcess, books: Books, client: ClientCore, panel: PanelClient, *, taking: bool = True
) -> AsyncIterator[Load]:
    """Every link moves bytes again and again, and a caller takes what is owed, until the context ends."""
    load = Load(node, books, client, panel)
    tasks = [asyncio.create_task(load.mover(email)) for email in client.links]
    if taking:
        tasks.append(asyncio.create_task(load.taker()))
    try:
        yield load
    finally:
        load.end.set()
        await asyncio.gather(*tasks)


class Load:
    """Users and a caller at work."""

    def __init__(self, node: NodeProcess, books: Books, client: ClientCore, panel: PanelClient) -> None:
        self._node = node
        self._books = books
        self._client = client
        self._panel = panel
        self.end = asyncio.Event()
        self.answers = 0
        self.refused = 0
        self._taking = asyncio.Lock()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.end.wait(), seconds)

    async def mover(self, email: str) -> None:
        async with self._node.panel() as panel:
            while not self.end.is_set():
                try:
                    await self._books.move(self._client, email)
                except TransferError:
                    # Only transfers that may have moved something are begun.
                    await eventually(
                        panel.backend_stats, "the core is back", 90, errors=(PanelError, NoAnswerError, OSError)
                    )
                await self._pause(0.01)

    async def taker(self) -> None:
        while not self.end.is_set():
            try:
                async with self._taking:
                    self._books.took(await self._panel.stats(pb.UsersStat, reset=True))
                self.answers += 1
            except (PanelError, NoAnswerError, OSError):
                self.refused += 1
            await self._pause(0.05)

    @contextlib.asynccontextmanager
    async def nothing_on_loan(self) -> AsyncIterator[None]:
        """The node knows that every answer arrived, and nobody takes another one until the end of the block.

        For tests that kill workers: what arrived in the moment before its worker could say so is given out once more.
        """

        async def settled() -> bool:
            return (await stored_with_loans(self._node))[1] == 0

        async with self._taking:
            await eventually(settled, "nothing is on loan", SETTLED_SECONDS, errors=BUS_ERRORS, rest=True)
            yield

    async def progress(self, transfers: int, answers: int = 3, timeout_seconds: float = 90.0) -> None:
        """Wait until so many transfers went through and so many answers came from now on."""
        transfers += len(self._books.history)
        answers += self.answers
        await eventually(
            lambda: len(self._books.history) >= transfers and self.answers >= answers, "traffic moves", timeout_seconds
        )

    async def go_on(self, seconds: float) -> None:
        """Wait until transfers went through for so long from now on."""
        begun = time.monotonic()
        await eventually(lambda: self._books.history and self._books.history[-1][0] - begun > seconds, "traffic", 60)


class SlowCaller:
    """A caller on a connection of its own that takes in no more than it is told to: little fits into its buffers."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.connection: Connection
        self._reader: asyncio.StreamReader

    async def __aenter__(self) -> SlowCaller:
        plain = socket(AF_INET, SOCK_STREAM)
        plain.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (self._node.host, self._node.port))
        tls = ssl.create_default_context(cafile=str(self._node.ca_file))
        self._reader, writer = await asyncio.open_connection(
            sock=plain, ssl=tls, server_hostname=self._node.host, limit=4096
        )
        self.connection = Connection(self._reader, writer)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.end_input()

    async def ask(self, panel: PanelClient, request: pb.StatRequest) -> None:
        body = request.SerializeToString()
        head = panel.head("GET", "/stats", {"Content-Type": PROTOBUF, "Content-Length": str(len(body))})
        self.connection.send(head + body)
        await self.connection.drain()

    async def read(self, count: int) -> bytes:
        return await self._reader.readexactly(count)


def totals(answers: Sequence[Iterable[pb.Stat]]) -> Counter[CounterKey]:
    """The sums of several answers."""
    found: Counter[CounterKey] = Counter()
    for stats in answers:
        for stat in stats:
            found[stat.name, stat.type] += stat.value
    return found


async def fill(node: NodeProcess, books: Books, count: int, prefix: str, value: Callable[[int], int]) -> None:
    """Owe the traffic of ``count`` users who have gone: written into the store of a node that is not running its books."""
    rows: dict[str, LedgerRow] = {}
    for number in range(count):
        email = f"{prefix}{number}{GONE}"
        for direction in ("uplink", "downlink"):
            rows[f"user>>>{email}>>>traffic>>>{direction}"] = LedgerRow(value(number), 0, 0, 0)
            books.moved[email, direction] += value(number)
    await asyncio.to_thread(write_counters, node, rows)
