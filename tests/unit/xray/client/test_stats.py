"""Counters, and who is online."""

from __future__ import annotations

import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.proto.stats_command_pb2 import Stat, UserStat
from tests.unit.xray.client.builders import DEADLINE_SECONDS
from tests.unit.xray.fake_core import FakeCore, Refusal

UPLINK = "user>>>alice>>>traffic>>>uplink"


async def test_counters(fake: FakeCore, api: CoreApi) -> None:
    fake.counters = {UPLINK: 5, "inbound>>>in>>>traffic>>>uplink": 7}
    answer = await api.stats.query_stats("user>>>", DEADLINE_SECONDS)
    assert [(stat.name, stat.value) for stat in answer.stat] == [(UPLINK, 5)]
    pieces = await api.stats.query_stats_pieces("", DEADLINE_SECONDS)
    assert {stat.name: stat.value for stat in map(Stat.FromString, pieces)} == fake.counters
    assert await api.stats.get_stat(UPLINK, DEADLINE_SECONDS) == 5
    assert await api.stats.get_stat("user>>>bob>>>traffic>>>uplink", DEADLINE_SECONDS) is None


async def test_who_is_online(fake: FakeCore, api: CoreApi) -> None:
    fake.online = {"alice": {"192.0.2.1": 100, "192.0.2.2": 200}}
    fake.counters = {UPLINK: 5}
    assert await api.stats.online_users(DEADLINE_SECONDS) == {"alice"}
    assert await api.stats.online(DEADLINE_SECONDS) == fake.online
    assert await api.stats.online_count("alice", DEADLINE_SECONDS) == 2
    assert await api.stats.online_count("bob", DEADLINE_SECONDS) is None
    assert await api.stats.online_ips("alice", DEADLINE_SECONDS) == fake.online["alice"]
    assert await api.stats.online_ips("bob", DEADLINE_SECONDS) is None
    [user] = (await api.stats.users_stats(DEADLINE_SECONDS)).users
    assert user.traffic.uplink == 5
    [piece] = await api.stats.users_stats_pieces(DEADLINE_SECONDS, include_traffic=False)
    assert UserStat.FromString(piece).email == "alice"
    assert not UserStat.FromString(piece).HasField("traffic")


async def test_other_errors_are_not_taken_for_nothing(fake: FakeCore, api: CoreApi) -> None:
    def refuse(_request: bytes) -> bytes:
        raise Refusal("app/stats: no manager")

    fake.answers["/xray.app.stats.command.StatsService/GetStats"] = refuse
    with pytest.raises(CoreApiError, match="no manager"):
        await api.stats.get_stat(UPLINK, DEADLINE_SECONDS)


async def test_figures_of_the_process(api: CoreApi) -> None:
    assert (await api.stats.sys_stats(DEADLINE_SECONDS)).NumGoroutine == 7
    assert "StatsClient" in repr(api.stats)
