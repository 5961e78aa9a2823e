"""A panel that stops the node and then sends a config that fails, again and again, drops nobody."""

from __future__ import annotations

import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelError
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.e2e.conftest import FAST
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill


async def test_a_config_that_fails_again_and_again_drops_nobody(target: Target) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    users = [make_user("holder@e2e", ["VLESS"])]
    links = [link(config["inbounds"][0], users[0], name="VLESS")]
    async with (
        NodeProcess(env={**FAST, "STOP_LINGER_SECONDS": "1"}) as node,
        node.panel() as panel,
        ClientCore(links, target) as client,
    ):
        await panel.start(config, users)
        core = core_pid(node)
        async with client.hold("VLESS") as transfer:
            for _ in range(3):
                await panel.stop()
                with pytest.raises(PanelError, match="quux"):
                    await panel.start({**config, "outbounds": [{"protocol": "quux"}]}, users)
                # Longer than the core lingers after a stop.
                await transfer.wait_rounds(10)
            assert sum("start refused" in line for line in node.output) == 1
            # Nor does a supervisor that dies now.
            kill(node.pid)
            await node.wait()
            await node.start()
            assert core_pid(node) == core
            await transfer.wait_rounds(3)
            await panel.start(config, users)
            assert core_pid(node) == core
        transfer.check()
        # A stop that nothing follows is meant.
        await panel.stop()
        await eventually(lambda: core_pid(node) == 0, "the core has ended")
