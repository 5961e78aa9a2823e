"""How old the figures are that callers get: the node reads seldom by itself here, so whatever is newer was read for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, Traffic
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.support.polling import eventually

TAG, EMAIL = "VMess", "mover@e2e"
#: Longer than any test here waits.
INTERVAL_SECONDS = 300


@dataclass
class Stage:
    """A node with three REST workers, and somebody who moves bytes."""

    node: NodeProcess
    panel: PanelClient
    client: ClientCore

    async def counted(self, wanted: Traffic) -> None:
        async def look() -> bool:
            return await self.panel.traffic(EMAIL) == wanted

        await eventually(look, f"{wanted} is shown")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(target: Target) -> AsyncIterator[Stage]:
    config, user = make_config([make_inbound(TAG, "vmess")]), make_user(EMAIL, [TAG])
    env = {"STATS_UPDATE_INTERVAL_SECONDS": str(INTERVAL_SECONDS), "WEB_CONCURRENCY": "3"}
    async with NodeProcess(env=env) as node, node.panel() as panel:
        await panel.start(config, [user])
        async with ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client:
            yield Stage(node, panel, client)


async def test_a_read_right_after_traffic_shows_it(stage: Stage) -> None:
    before = await stage.panel.traffic(EMAIL)
    for number in range(1, 4):
        await stage.client.move(TAG, 10_000, 20_000)
        await stage.counted(Traffic(before.uplink_bytes + number * 10_000, before.downlink_bytes + number * 20_000))


async def test_who_is_online_is_found(stage: Stage) -> None:
    async with stage.client.hold(TAG):

        async def online() -> bool:
            return await stage.panel.online(EMAIL) == 1

        await eventually(online, "the user is online")


async def test_no_read_shows_what_a_reset_handed_out(stage: Stage) -> None:
    """Not at another worker either: callers are spread over all of them."""
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(stage.node.panel()) for _ in range(12)]
        await asyncio.gather(*(reader.info() for reader in readers))
        for number in range(10):
            await stage.panel.traffic(EMAIL, reset=True)
            await stage.client.move(TAG, 10_000 + number, 1_000)
            await stage.counted(Traffic(10_000 + number, 1_000))
            taken = await readers[number].traffic(EMAIL, reset=True)
            assert taken == Traffic(10_000 + number, 1_000)
            assert await asyncio.gather(*(reader.traffic(EMAIL) for reader in readers)) == [Traffic(0, 0)] * 12


async def test_what_was_counted_is_in_a_reset_that_is_asked_for_later(stage: Stage) -> None:
    await stage.panel.traffic(EMAIL, reset=True)
    for number in range(10):
        await stage.client.move(TAG, 20_000 + number, 1_000)
        # The client has all of it, so the core had counted it.
        assert await stage.panel.traffic(EMAIL, reset=True) == Traffic(20_000 + number, 1_000)
