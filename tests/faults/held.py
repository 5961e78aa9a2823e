"""Connections of real users that go on while a fault happens, and what the node counts of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, HeldTransfer, link
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.faults.trial import Trial
from tests.support.polling import eventually

#: A block may be on its way when a connection breaks, in each direction: the node may have counted it.
_BLOCK_BYTES = 8192
#: Generous: the node may first have to bring its core back.
_COUNTED_SECONDS = 60.0
#: A connection may stand still for so long; where the core ends, nobody needs to wait for what will not come.
_SILENCE_SECONDS, _SILENCE_WHERE_THE_CORE_ENDS_SECONDS = 30.0, 3.0
_NOT_YET = (PanelError, NoAnswerError, OSError)


class Holders:
    """A client core with links of users who hold connections; each test takes the next user.

    Args:
        client: The client core.
        links: User -> the names of the links.
    """

    def __init__(self, client: ClientCore, links: Mapping[str, Sequence[str]], tags: Sequence[str]) -> None:
        self._client = client
        self._links = links
        self._unused = iter(links)
        self._tags = tags

    def next_user(self) -> pb.User:
        """A user who has held nothing yet."""
        return make_user(next(self._unused), self._tags)

    def connections(self, node: NodeProcess, user: pb.User, trial: Trial) -> HeldConnections:
        """The connections of a user, not begun yet."""
        return HeldConnections(node, self._client, user.email, self._links[user.email], trial)


@contextlib.asynccontextmanager
async def holders(config: Mapping[str, object], tags: Sequence[str], count: int) -> AsyncIterator[Holders]:
    """So many users, each with a link into each of these inbounds of a config."""
    inbounds = {item["tag"]: item for item in config["inbounds"] if item["tag"] in tags}  # type: ignore[attr-defined]
    links, names = [], {}
    for number in range(count):
        user = make_user(f"held{number}@faults", tags)
        own = [link(inbounds[tag], user, name=f"{user.email} {tag}") for tag in tags]
        links += own
        names[user.email] = [one.name for one in own]
    async with Target() as target, ClientCore(links, target) as client:
        yield Holders(client, names, tags)


class HeldConnections:
    """One user's connections through a node, one through each link."""

    def __init__(self, node: NodeProcess, client: ClientCore, email: str, names: Sequence[str], trial: Trial) -> None:
        self._node = node
        self._client = client
        self._email = email
        self._names = names
        self._trial = trial
        self._open = contextlib.AsyncExitStack()
        self.transfers: list[HeldTransfer] = []

    async def __aenter__(self) -> HeldConnections:
        await self.begin()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close()
        if kind is None:
            await self.end()

    async def begin(self) -> None:
        """Connect, and see the first block come back."""
        silence = _SILENCE_WHERE_THE_CORE_ENDS_SECONDS if self._trial.core_ends else _SILENCE_SECONDS
        for name in self._names:
            held = self._client.hold(name, silence_limit_seconds=silence)
            self.transfers.append(await self._open.enter_async_context(held))

    async def go_on(self) -> None:
        """They all still move, unless the core has ended. TransferError."""
        self._trial.connections(self.transfers)
        for transfer in self.transfers:
            if transfer.broken is None and not self._trial.core_ends:
                await transfer.wait_rounds(2)

    async def end(self) -> None:
        """End them in good order, and hold what the node has counted against what moved. AssertionError."""
        await self.close()
        self._trial.connections(self.transfers)
        moved = Counter(
            uplink=sum(one.sent_bytes for one in self.transfers),
            downlink=sum(one.received_bytes for one in self.transfers),
        )
        uncertain = 2 * _BLOCK_BYTES * sum(one.broken is not None for one in self.transfers)
        off: Counter[str] = Counter()

        async def counted() -> bool:
            async with self._node.panel() as panel:
                off.clear()
                off.update(await self._off(panel, moved))
            # What a core that ended had not been asked for yet is lost; nothing may be there twice.
            return not any(value > uncertain or (value < 0 and not self._trial.core_ends) for value in off.values())

        try:
            await eventually(counted, "all that moved is counted", _COUNTED_SECONDS, errors=_NOT_YET)
        except AssertionError as error:
            raise AssertionError(f"{error}; of {dict(moved)} bytes the node's count is off by {dict(off)}") from None
        finally:
            lost = sum(max(0, -value) for value in off.values())
            twice = sum(max(0, value - uncertain) for value in off.values())
            self._trial.bytes(lost + twice, sum(moved.values()))

    async def _off(self, panel: PanelClient, moved: Counter[str]) -> dict[str, int]:
        traffic = await panel.traffic(self._email)
        return {
            "uplink": traffic.uplink_bytes - moved["uplink"],
            "downlink": traffic.downlink_bytes - moved["downlink"],
        }

    async def close(self) -> None:
        """End them."""
        await self._open.aclose()
