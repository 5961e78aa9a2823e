"""A supervisor that takes over a running core leaves alone whoever is there as desired: nobody is turned away meanwhile."""

from __future__ import annotations

from pgnode.testing.configs import config_tags, make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_users
from pgnode.xray.client.api import CoreApi
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill

USERS = 20


async def _killed_and_started(node: NodeProcess) -> None:
    before = core_pid(node)
    kill(node.pid)
    await node.wait()
    await node.start()
    await eventually(lambda: "compared with the core" in node.output_text, "the core was taken over")
    assert core_pid(node) == before


async def test_users_who_are_as_desired_are_left_alone(node: NodeProcess, panel: PanelClient) -> None:
    config = make_config(plain_inbounds())
    tags = config_tags(config)
    await panel.start(config, make_users(USERS, tags))
    # Some came with the config of the core, others by its API.
    await panel.sync_chunked(make_users(5, tags, key="new"))
    await _killed_and_started(node)
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
    await _killed_and_started(node)
    assert f"as_desired={USERS - 2} others=2" in node.output_text
    expected = {user.email for user in make_users(USERS, tags)}
    for tag in tags:
        assert set(await inbound_users(node.run_dir / "core.sock", tag)) == expected
