"""Counters of inbounds: not kept unless somebody wants them, never a zero in their place, and nobody dropped for them."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from pgnode.testing.configs import COUNTED_INBOUNDS, make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError, Traffic
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import REST
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end

TAG, EMAIL = "VMess", "mover@e2e"


def made_config(**more: Any) -> dict[str, Any]:
    return make_config([make_inbound(TAG, "vmess")]) | more


def client_of(config: dict[str, Any], target: Target) -> ClientCore:
    return ClientCore([link(config["inbounds"][0], make_user(EMAIL, [TAG]), name=TAG)], target)


async def waiting(node: NodeProcess) -> str:
    """What waits for the next core, by ``pgnode status``."""
    arguments = [sys.executable, "-m", "pgnode", "status", "--json"]
    _, output = await run_to_end(arguments, env=node.environment())
    return str(json.loads(output)["report"]["core"]["waiting"])


async def moved(panel: PanelClient, wanted: Traffic) -> None:
    async def look() -> bool:
        return await panel.traffic(EMAIL) == wanted

    await eventually(look, f"{wanted} is counted for the user")


async def uploaded(panel: PanelClient) -> int:
    """Bytes that the inbound took in. Of what goes down, the core does not count what it hands to the kernel in one piece."""
    [value] = [stat.value for stat in await panel.stats(pb.Inbound, TAG) if stat.type == "uplink"]
    return value


async def test_inbounds_are_counted_once_somebody_asks_and_a_new_core_starts(target: Target) -> None:
    config, user = made_config(), make_user(EMAIL, [TAG])
    async with NodeProcess(env=REST) as node, node.panel() as panel, client_of(config, target) as client:
        await panel.start(config, [user])
        await client.move(TAG, 100_000, 200_000)
        await moved(panel, Traffic(100_000, 200_000))
        assert {stat.name for stat in await panel.stats(pb.Outbounds)} >= {"DIRECT"}
        for reset in (False, True):
            with pytest.raises(PanelError, match=r"404 .*traffic of inbounds is not counted by this core"):
                await panel.stats(pb.Inbound, TAG, reset=reset)
            assert await panel.stats(pb.Inbounds, reset=reset) == []

        # It waits for the next core, also where the supervisor is another one by then; nobody is dropped for it.
        async with client.hold(TAG) as held:
            before = core_pid(node)
            await panel.start(config, [user])
            assert core_pid(node) == before
            assert "counters of inbounds" in await waiting(node)
            # It is remembered: the supervisor that comes after this one knows it as well.
            node.send_signal(signal.SIGKILL)
            await node.wait()
            await node.start()
            assert core_pid(node) == before
            assert "counters of inbounds" in await waiting(node)
            await held.wait_rounds(2)
            held.check()
        code, output = await run_to_end([sys.executable, "-m", "pgnode", "restart", "--core"], env=node.environment())
        assert code == 0, output
        assert core_pid(node) != before
        assert await waiting(node) == ""
        assert await uploaded(panel) == 0
        counted = await panel.traffic(EMAIL)
        await client.move(TAG, 30_000, 40_000)
        await moved(panel, Traffic(counted.uplink_bytes + 30_000, counted.downlink_bytes + 40_000))

        async def inbound_counts() -> bool:
            return await uploaded(panel) >= 30_000

        await eventually(inbound_counts, "the inbound is counted, with what its protocol adds")
        assert await uploaded(panel) < 40_000


@pytest.mark.parametrize(
    ("setting", "config", "counted"),
    [("auto", COUNTED_INBOUNDS, True), ("on", {}, True), ("off", COUNTED_INBOUNDS, False)],
)
async def test_config_and_operator_decide(target: Target, setting: str, config: dict[str, Any], counted: bool) -> None:
    whole = made_config(**config)
    async with NodeProcess(env={**REST, "INBOUND_STATS": setting}) as node, node.panel() as panel:
        await panel.start(whole, [make_user(EMAIL, [TAG])])
        async with client_of(whole, target) as client:
            await client.move(TAG, 100_000, 200_000)
        await moved(panel, Traffic(100_000, 200_000))
        if counted:
            assert 100_000 <= await uploaded(panel) < 120_000
        else:
            with pytest.raises(PanelError, match="unless INBOUND_STATS=off"):
                await panel.stats(pb.Inbound, TAG)
        assert await panel.traffic(EMAIL, reset=True) == Traffic(100_000, 200_000)
