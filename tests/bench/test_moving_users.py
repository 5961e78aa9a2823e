"""The bench's many users: what they move is what a real core counts. And its readings of processes."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from bench.moving_users import MovingUsers, MovingUsersError, cpu_seconds, silences_ms
from bench.moving_users_process import BLOCK_DOWN, BLOCK_UP
from bench.servers import bare_core
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.ports import free_port
from pgnode.testing.users import make_users
from pgnode.xray.client.api import CoreApi
from tests.support.polling import eventually

USERS = 40


async def test_every_user_moves_a_block_each_way_through_the_core() -> None:
    users = make_users(USERS, ["VLESS"])
    port = free_port()
    clients = [{"id": user.proxies.vless.id, "email": user.email} for user in users[:-1]]
    config = make_config([make_inbound("VLESS", "vless", clients=clients) | {"port": str(port)}]) | {
        "api": {"tag": "api", "services": ["StatsService"]},
        "stats": {},
        "policy": {"levels": {"0": {"statsUserUplink": True, "statsUserDownlink": True, "statsUserOnline": True}}},
    }
    async with bare_core(config) as bare, CoreApi(bare.socket) as api, MovingUsers(port, users) as movers:
        await movers.move(0, USERS - 1)
        await movers.hold(3, 2)

        async def only_those_who_stayed_are_online() -> bool:
            # The core sees a moment later that the others have gone.
            online = await api.stats.online_users(30)
            return online == {"user3@demo", "user4@demo"}

        await eventually(only_those_who_stayed_are_online, "the core shows those as online who stayed, and nobody else")
        await movers.pulse()
        await movers.release()
        with pytest.raises(MovingUsersError, match="1 users could not move"):
            await movers.move(USERS - 2, 2)
        counted = {stat.name: stat.value for stat in (await api.stats.query_stats("user>>>", 30)).stat}
    for number in range(USERS - 1):
        blocks = 3 if number in (3, 4) else 2 if number == USERS - 2 else 1
        assert counted[f"user>>>user{number}@demo>>>traffic>>>uplink"] == blocks * BLOCK_UP
        assert counted[f"user>>>user{number}@demo>>>traffic>>>downlink"] == blocks * BLOCK_DOWN


async def test_a_supervisor_that_does_not_answer_shows_as_silence() -> None:
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            threading.Event().wait(0.1)

    found = await asyncio.to_thread(silences_ms, ask, 0.3)
    assert len(found) == asked >= 3
    assert found[2] >= 90


def test_processor_time_grows() -> None:
    before = cpu_seconds(os.getpid())
    sum(number * number for number in range(100_000))
    assert cpu_seconds(os.getpid()) > before
