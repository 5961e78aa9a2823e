"""Users, their traffic and their changes, through the panel's own client."""

from __future__ import annotations

import time

import pytest

from pgnode import __version__
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from pgnode.wire.node_version import told_version
from tests.panel.client import ClientError
from tests.panel.conftest import TAGS, USERS, Stage
from tests.support.polling import eventually

pytestmark = pytest.mark.needs_client


async def test_a_start_with_four_protocols_and_fifty_users(stage: Stage) -> None:
    started = await stage.panel.start(stage.config, stage.users)
    assert started.started
    assert started.core_version
    assert started.node_version == told_version(__version__)
    assert await stage.panel.call("info") == started
    assert await stage.panel.call("get_versions") == [started.node_version, started.core_version]
    assert await stage.panel.call("_supports_chunked_sync") == [True, started.node_version], "the client can read it"
    for tag in TAGS:
        assert await stage.emails(tag) == {user.email for user in stage.users}
        await stage.core.move(tag, 1_000, 2_000)
    system = await stage.panel.call("get_system_stats")
    assert 0 < system.mem_used <= system.mem_total
    assert (await stage.panel.call("get_backend_stats")).num_goroutine > 0


async def test_statistics_of_every_type_hold_what_was_moved(stage: Stage) -> None:
    for kind in (pb.UsersStat, pb.Inbounds, pb.Outbounds):
        await stage.panel.stats(kind, reset=True)
    moved = {tag: (40_000 + number, 90_000 + number) for number, tag in enumerate(TAGS)}
    for tag, (up_bytes, down_bytes) in moved.items():
        await stage.core.move(tag, up_bytes, down_bytes)
    users = {
        (stage.users[number].email, link): count
        for number, tag in enumerate(TAGS)
        for link, count in zip(("uplink", "downlink"), moved[tag], strict=True)
    }

    total = tuple(sum(moved[tag][side] for tag in TAGS) for side in (0, 1))
    outbound = {("DIRECT", "uplink"): total[0], ("DIRECT", "downlink"): total[1]}

    async def all_counted() -> bool:
        """Users, inbounds and outbounds are not read in the same moment."""
        inbounds = await stage.panel.counted(pb.Inbounds)
        return (
            await stage.panel.counted(pb.UsersStat) == users
            and await stage.panel.counted(pb.Outbounds) == outbound
            # Inbounds count what their protocols add as well. Of what goes down, the core counts at an inbound only what it
            # does not hand to the kernel in one piece: far less than was moved, for raw TCP (core 26.10.10).
            and all(moved[tag][0] <= inbounds.get((tag, "uplink"), 0) < moved[tag][0] * 1.2 for tag in TAGS)
        )

    await eventually(all_counted, "all that was moved is counted, everywhere")
    for number, tag in enumerate(TAGS):
        email, (up_bytes, down_bytes) = stage.users[number].email, moved[tag]
        one = await stage.panel.counted(pb.UserStat, email)
        assert one == {(email, "uplink"): up_bytes, (email, "downlink"): down_bytes}
        inbound = await stage.panel.counted(pb.Inbound, tag)
        assert inbound
        assert (await stage.panel.counted(pb.Inbounds)).items() >= inbound.items()
    assert await stage.panel.counted(pb.Outbound, "DIRECT") == outbound

    # With `reset` the books are handed over, and nothing twice.
    assert await stage.panel.counted(pb.UsersStat, reset=True) == users
    assert await stage.panel.counted(pb.UsersStat, reset=True) == {}
    assert await stage.panel.counted(pb.Outbound, "DIRECT", reset=True) == outbound
    assert await stage.panel.counted(pb.Outbounds, reset=True) == {}
    assert await stage.panel.stats(pb.UserStat, "nobody@demo") == []


async def test_who_is_online_and_from_where(stage: Stage) -> None:
    email = stage.users[4].email
    async with stage.core.hold("127.0.0.3"), stage.core.hold("127.0.0.4"):

        async def both() -> bool:
            try:
                answer = await stage.panel.call("get_user_online_ip_list", email=email)
            except ClientError:
                return False
            now = time.time()
            assert all(now - 60 < seen <= now + 1 for seen in answer.ips.values())
            return set(answer.ips) == {"127.0.0.3", "127.0.0.4"}

        await eventually(both, f"{email} is online from two addresses")
        online = await stage.panel.call("get_user_online_stats", email=email)
        assert (online.name, online.value) == (email, 2)
    for method in ("get_user_online_stats", "get_user_online_ip_list"):
        with pytest.raises(ClientError) as caught:
            await stage.panel.call(method, email="nobody@demo")
        assert caught.value.code == 404
        assert "not found" in caught.value.detail


async def test_add_change_the_key_remove_through_the_clients_queue(stage: Stage) -> None:
    first, second = make_user("new@demo", TAGS), make_user("new@demo", TAGS, key="2")
    assert await stage.core.refused("new")

    await stage.panel.queue([first])
    await eventually(stage.panel.settled, "the new user was sent")
    await stage.core.move("new", 1_000, 1_000)
    assert await stage.core.refused("new, other key")

    await stage.panel.queue([second])
    await eventually(stage.panel.settled, "the new key was sent")
    await stage.core.move("new, other key", 1_000, 1_000)
    assert await stage.core.refused("new")

    await stage.panel.queue([pb.User(email="new@demo")])
    await eventually(stage.panel.settled, "the removal was sent")
    assert await stage.core.refused("new, other key")
    assert await stage.panel.rejected() == {}
    for tag in TAGS:
        assert "new@demo" not in await stage.emails(tag)


async def test_users_one_by_one_as_for_older_nodes(stage: Stage) -> None:
    """The way the client takes for nodes before 0.2.0; over gRPC it is one stream."""
    batch = make_users(20, TAGS, name="single")
    assert await stage.panel.call("_sync_batch_users", users=batch) == []
    added = {user.email for user in batch}

    async def there() -> bool:
        return added <= await stage.emails()

    await eventually(there, "twenty users sent one by one are there")


async def test_three_hundred_in_chunks_while_a_connection_is_held(stage: Stage) -> None:
    batch = make_users(300, TAGS, name="many")
    async with stage.core.hold("Trojan") as held:
        assert await stage.panel.sync_chunked(batch, chunk_size=100) is None
        assert len(await stage.emails()) == USERS + 300
        await held.wait_rounds(3)
        # The other way round, in small chunks.
        removals = [pb.User(email=user.email) for user in batch]
        assert await stage.panel.sync_chunked(removals, chunk_size=7) is None
        assert len(await stage.emails()) == USERS
        await held.wait_rounds(3)
        held.check()


async def test_an_empty_list_of_each_kind(stage: Stage) -> None:
    assert await stage.panel.sync_chunked([]) is None
    assert len(await stage.emails()) == USERS
    await stage.panel.call("sync_users", users=[])
    for tag in TAGS:
        assert await stage.emails(tag) == set()
    assert await stage.core.refused("VLESS")
    await stage.panel.call("sync_users", users=stage.users)
    await stage.core.move("VLESS", 1_000, 1_000)


async def test_of_a_hundred_users_with_one_bad_exactly_that_one_is_rejected(stage: Stage) -> None:
    batch = make_users(100, TAGS, name="mixed")
    bad = batch[37]
    bad.proxies.vless.id = "no-uuid-at-all-and-longer-than-thirty-characters"
    good = {user.email for user in batch} - {bad.email}

    failed = await stage.panel.sync_chunked(batch)
    assert failed is not None
    assert failed.rejected
    assert f"failed to update users: {bad.email}: " in failed.detail
    assert good <= await stage.emails()

    # Through its queue the client splits the list until it has found the one.
    await stage.panel.call("sync_users", users=stage.users)
    await stage.panel.queue(batch)

    async def found() -> bool:
        return set(await stage.panel.rejected()) == {bad.email} and good <= await stage.emails()

    await eventually(found, "all but the bad one are there, and the client holds back that one")
    assert await stage.panel.settled()
    assert f"failed to update users: {bad.email}: " in (await stage.panel.rejected())[bad.email]
    # A full list is the end of it.
    await stage.panel.call("sync_users", users=stage.users)
    assert await stage.panel.rejected() == {}
