"""``pgnode stats``: what an operator sees of traffic, against bytes that really moved."""

from __future__ import annotations

import json
import sys
from typing import Any

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.support.polling import eventually
from tests.support.processes import run_to_end

TAG = "VLESS"


async def shown(node: NodeProcess, *arguments: str) -> tuple[int, str]:
    """Exit code and output of ``pgnode stats``."""
    return await run_to_end([sys.executable, "-m", "pgnode", "stats", *arguments], env=node.environment())


async def test_traffic_as_an_operator_sees_it(node: NodeProcess, panel: PanelClient, target: Target) -> None:
    config = make_config([make_inbound(TAG, "vless")])
    mover, idle = make_user("mover@e2e", [TAG]), make_user("idle@e2e", [TAG])
    await panel.start(config, [mover, idle])
    found: dict[str, Any] = {}

    async def counted() -> bool:
        code, output = await shown(node, "--json")
        assert code == 0, output
        found.update(json.loads(output))
        return [user["downlink_bytes"] for user in found["users"]] == [400_000]

    async with ClientCore([link(config["inbounds"][0], mover, name=TAG, source_address="127.0.0.9")], target) as client:
        await client.move(TAG, 300_000, 400_000)
        await eventually(counted, "all bytes are shown")
    [user] = found["users"]
    assert user == {
        "name": "mover@e2e",
        "uplink_bytes": 300_000,
        "downlink_bytes": 400_000,
        "owed_bytes": 700_000,
        "online": user["online"],
    }
    assert [inbound["name"] for inbound in found["inbounds"]] == [TAG]
    assert found["state"] == "running"
    assert found["core_runs"] >= 1
    assert 0 <= found["age_seconds"] < 60
    assert found["owed_bytes"]["users"] == 700_000
    assert found["owed_bytes"]["inbounds"] > 0

    assert (await panel.traffic("mover@e2e", reset=True)).uplink_bytes == 300_000

    async def handed_over() -> bool:
        [user] = json.loads((await shown(node, "--json"))[1])["users"]
        return bool(user["owed_bytes"] == 0 and user["uplink_bytes"] == 300_000)

    await eventually(handed_over, "what was taken is owed no more, and still counted")
    code, text = await shown(node, "--top", "1")
    assert code == 0
    assert text.startswith("node running, core run ")
    assert "mover@e2e" in text
    assert "300.0 kB" in text
    assert "owed: counted, and not yet given" in text


async def test_without_a_node_it_says_so(node: NodeProcess) -> None:
    environment = node.environment() | {"STATE_DIR": str(node.state_dir.parent / "none")}
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "stats"], env=environment)
    assert code == 1
    assert "the node's store does not answer" in output
    assert "none running?" in output
