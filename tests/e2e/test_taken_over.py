"""A supervisor that takes over a running core leaves alone whoever is there as desired: nobody is turned away meanwhile."""

from __future__ import annotations

import pytest

from pgnode.testing.configs import config_tags, make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_users
from pgnode.xray.client.api import CoreApi
from tests.faults.leftovers import tidy
from tests.faults.table import BYTES
from tests.faults.trial import Trial
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill

USERS = 20


async def _killed_and_started(node: NodeProcess) -> None:
    before = core_pid(node)
    kill(node.pid)
    await node.wait()
    await node.start()
    await eventually(lambda: "because='take over core: done'" in node.output_text, "the core was taken over")
    assert core_pid(node) == before


@pytest.mark.fault(
    "supervisor killed, and users in the core changed by somebody else before the next one comes",
    unmeasured={
        BYTES: "the user whose connection is held is given new secrets meanwhile; every block came back as it was sent"
    },
)
async def test_users_who_are_as_desired_are_left_alone(
    node: NodeProcess, panel: PanelClient, target: Target, trial: Trial
) -> None:
    config = make_config(plain_inbounds())
    tags = config_tags(config)
    await panel.start(config, make_users(USERS, tags))
    way = link(config["inbounds"][0], make_users(1, tags)[0], name="held")
    async with ClientCore([way], target) as client, client.hold("held") as held:
        await _two_kills(node, panel, tags, trial)
        await held.wait_rounds(2)
        trial.connections([held])
    trial.tried(2)
    await tidy(node, trial)


async def _two_kills(node: NodeProcess, panel: PanelClient, tags: list[str], trial: Trial) -> None:
    # Some came with the config of the core, others by its API.
    await panel.sync_chunked(make_users(5, tags, key="new"))
    trial.struck()
    await _killed_and_started(node)
    trial.well()
    assert f"as_desired={USERS} others=0" in node.output_text

    gone, changed = "user7@demo", "user8@demo"
    async with CoreApi(node.run_dir / "core.sock") as api:
        await api.users.remove_user("VMess", gone, 30.0)
        await api.users.remove_user("Shadowsocks", changed, 30.0)
        [theirs] = [user for user in await api.users.inbound_users("Shadowsocks", 30.0) if user.email == "user9@demo"]
        theirs.email = changed
        await api.users.add_user("Shadowsocks", theirs.SerializeToString(), 30.0)
        theirs.email = "stranger@demo"
        await api.users.add_user("Shadowsocks", theirs.SerializeToString(), 30.0)
    trial.struck()
    await _killed_and_started(node)
    assert f"as_desired={USERS - 2} others=2" in node.output_text
    expected = {user.email for user in make_users(USERS, tags)}
    lost = 0
    for tag in tags:
        found = set(await inbound_users(node.run_dir / "core.sock", tag))
        lost += len(found ^ expected)
        assert found == expected
    trial.well()
    trial.changes(lost, USERS + 5)
