"""The node's states, its log and its end as the panel's own client meets them."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from pgnode.testing.configs import make_inbound
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_user, make_users
from tests.panel.client import Client, ClientError, Driver
from tests.panel.conftest import TAGS, USERS, Stage
from tests.support.polling import eventually, next_turn
from tests.support.processes import core_pid, kill

pytestmark = pytest.mark.needs_client

#: Calls that need a core, with arguments that a node would take.
NEED_A_CORE: dict[str, dict[str, Any]] = {
    "get_backend_stats": {},
    "get_stats": {"stat_type": 4, "reset": False},
    "get_user_online_stats": {"email": "user0@demo"},
    "get_user_online_ip_list": {"email": "user0@demo"},
    "sync_users": {"users": []},
}


async def error_of(client: Client, method: str, **args: Any) -> tuple[int | None, str]:
    with pytest.raises(ClientError) as caught:
        await client.call(method, **args)
    return caught.value.code, caught.value.detail


async def test_two_viewers_of_the_log(stage: Stage, beside: PanelClient) -> None:
    """The stop comes from elsewhere: over REST, a client that stops its node closes its own viewers with it."""
    async with stage.panel.logs() as first, stage.panel.logs() as second:
        await beside.stop()
        for viewer in (first, second):
            line = await viewer.wait_for("stop requested")
            assert "data:" not in line
            assert line == line.strip()


async def test_a_viewer_while_nothing_is_logged(stage: Stage, beside: PanelClient) -> None:
    """The stream opens at once, nothing comes that is no line, and what is logged later is still seen."""
    async with stage.panel.logs() as viewer:
        async with asyncio.timeout(30):
            await stage.panel.call("info")
        assert all(viewer.take())
        await beside.stop()
        await viewer.wait_for("stop requested")


async def test_stop_and_start_again(stage: Stage, beside: PanelClient) -> None:
    # A start without a stop: stops and starts of other tests do not count, of which a third one would make a new core.
    assert (await stage.panel.start(stage.config, stage.users)).started
    async with stage.core.hold("Trojan") as held:
        await stage.panel.call("stop")
        assert not (await beside.info()).started
        # The client lets a second stop go unsent, and after the start sends what was queued in between.
        await stage.panel.call("stop")
        await stage.panel.queue([make_user("late@demo", TAGS)])
        assert (await stage.panel.start(stage.config, stage.users)).started
        await eventually(stage.panel.settled, "what was queued while the node was stopped was sent")
        assert len(await stage.emails()) == USERS + 1
        await stage.core.move("VLESS", 1_000, 1_000)
        await held.wait_rounds(3)
        held.check()


async def test_start_without_stop_and_a_second_client_that_takes_over(stage: Stage, driver: Driver) -> None:
    pid = core_pid(stage.node)
    async with stage.core.hold("VMess") as held:
        assert (await stage.panel.start(stage.config, stage.users)).started
        second = await Client.create(driver, stage.node, stage.panel.protocol)
        assert (await second.start(stage.config, stage.users[:20])).started
        await held.wait_rounds(3)
        assert len(await stage.emails()) == 20
        # Both may ask, and the first one's changes are taken as well.
        assert await stage.panel.sync_chunked(stage.users) is None
        assert len(await stage.emails()) == USERS
        assert (await second.call("get_backend_stats")).num_goroutine > 0
        await second.drop()
        held.check()
    assert core_pid(stage.node) == pid


async def test_a_wrong_key(stage: Stage, driver: Driver) -> None:
    stranger = await Client.create(driver, stage.node, stage.panel.protocol, api_key=str(uuid.uuid4()))
    for method, args in {"info": {}, "start": {"config": "{}", "backend_type": 0, "users": []}, **NEED_A_CORE}.items():
        code, detail = await error_of(stranger, method, **args)
        assert code == 401
        assert "the API key is missing or wrong" in detail
    failed = await stranger.sync_chunked(stage.users)
    assert failed is not None
    assert not failed.rejected
    with pytest.raises(ClientError) as caught:
        async with stranger.logs() as viewer:
            await viewer.wait_for("")
    assert caught.value.code == 401
    await stranger.drop()
    assert len(await stage.emails()) == USERS


async def test_without_a_backend(stage: Stage, beside: PanelClient) -> None:
    await beside.stop()
    assert not (await stage.panel.call("info")).started
    assert (await stage.panel.call("get_system_stats")).mem_total > 0
    for method, args in NEED_A_CORE.items():
        code, detail = await error_of(stage.panel, method, **args)
        assert code == 503
        assert "backend not initialized" in detail
    failed = await stage.panel.sync_chunked(stage.users)
    assert failed is not None
    assert not failed.rejected
    async with stage.panel.logs() as viewer:
        await stage.panel.start(stage.config, stage.users)
        await viewer.wait_for("start requested")


async def test_a_start_that_fails_says_why_first(stage: Stage) -> None:
    broken = stage.config | {"inbounds": [make_inbound("Broken", "no-such-protocol")]}
    code, detail = await error_of(stage.panel, "start", config="{no json", backend_type=0, users=[])
    assert code == 503
    assert "JSON" in detail
    with pytest.raises(ClientError) as caught:
        await stage.panel.start(broken)
    assert caught.value.code == 503
    assert "no-such-protocol" in caught.value.detail[:200]
    code, detail = await error_of(stage.panel, "start", config="{}", backend_type=1, users=[])
    assert code == 503
    assert "private_key is missing" in detail[:60]
    # The config that ran before runs on, or again.
    await stage.panel.start(stage.config, stage.users)
    await stage.core.move("VLESS", 1_000, 1_000)


async def test_while_the_core_is_brought_back(stage: Stage, node_faults: ArmedFaults) -> None:
    """The panel's health probe, and a sync in the middle of it: it waits, and resets nothing."""
    seen: set[tuple[int | None, str]] = set()

    async def healthy() -> bool:
        try:
            await stage.panel.call("get_backend_stats")
        except ClientError as error:
            seen.add((error.code, error.detail))
            return False
        return core_pid(stage.node) != 0

    async def known_to_be_gone() -> bool:
        return not await healthy() and any("core is not started yet" in text for _, text in seen)

    for _ in range(2):  # the second time the node waits a moment before it brings the core back
        node_faults.arm("core.start", "wait")
        kill(core_pid(stage.node))
        await node_faults.reached("core.start")
        await eventually(known_to_be_gone, "the core is known to be gone")
        syncing = asyncio.create_task(stage.panel.sync_chunked(make_users(3, TAGS, name="meanwhile")))
        await next_turn()
        node_faults.let_go("core.start")
        failed = await syncing
        assert failed is None or not failed.rejected
        await eventually(healthy, "the core is back")
    assert {code for code, _ in seen} == {503}
    assert all("core is not started yet" in text or "failed to get sys stats: " in text for _, text in seen)
    assert any("core is not started yet" in text for _, text in seen)
    assert {user.email for user in stage.users} <= await stage.emails()
    await stage.core.move("VLESS", 1_000, 1_000)
    assert (await stage.panel.call("info")).started
