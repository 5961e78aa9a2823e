"""A user that cannot be had stays on a list with its cause until it can; ``pgnode users`` shows it, and who waits."""

from __future__ import annotations

import asyncio
import sys

import grpc
import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError
from pgnode.testing.users import make_user, make_users
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, run_to_end, stopped

TAGS = ["Trojan", "VLESS"]
#: The core takes messages of up to 4 MiB: it refuses this user, with no word of the node's own in between.
LONG_PASSWORD = "x" * 4_500_000


async def listed(node: NodeProcess, *arguments: str) -> list[str]:
    """What ``pgnode users`` prints."""
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "users", *arguments], env=node.environment())
    assert code == 0, output
    return output.splitlines()


async def test_refused_users_from_the_sync_to_the_cure(node: NodeProcess, panel: PanelClient) -> None:
    config = make_config([make_inbound("VLESS", "vless"), make_inbound("Trojan", "trojan")])
    await panel.start(config, make_users(20, TAGS))
    unusable = make_user("unusable@e2e", TAGS)
    unusable.proxies.vless.id = "12345"
    refused = make_user("Refused@e2e", TAGS)
    refused.proxies.trojan.password = LONG_PASSWORD
    changed = make_user("user3@demo", TAGS, key="new")
    changed.proxies.vless.id = "54321"
    with pytest.raises(PanelError) as caught:
        await panel.sync_chunked([make_user("good@e2e", TAGS), unusable, refused, changed])
    assert caught.value.status == 500
    assert caught.value.text.startswith("failed to update users: ")
    for email in ("unusable@e2e: vless id is not a UUID", "Refused@e2e: ", "user3@demo: "):
        assert email in caught.value.text

    expected = {user.email for user in make_users(20, TAGS)} | {"good@e2e"}
    for tag in TAGS:
        assert set(await inbound_users(node.run_dir / "core.sock", tag)) == expected

    rows = await listed(node)
    assert rows[0] == "21 desired, 21 applied, 3 rejected; node running"
    assert "good@e2e  Trojan, VLESS" in rows
    assert len(rows) == 1 + 21 + 2
    failed = await listed(node, "--failed")
    assert len(failed) == 4
    assert any(row.startswith("unusable@e2e  rejected since 20") and "is not a UUID" in row for row in failed)
    assert any(row.startswith("user3@demo  rejected since") and "as before in Trojan, VLESS" in row for row in failed)

    # The list outlives the core, and the node.
    first = core_pid(node)
    kill(first)
    await eventually(lambda: core_pid(node) not in (0, first), "another core")

    async def in_core() -> bool:
        return all([set(await inbound_users(node.run_dir / "core.sock", tag)) == expected for tag in TAGS])

    async def counted() -> bool:
        return (await listed(node))[0] == "21 desired, 21 applied, 3 rejected; node running"

    # The command is a process each time, so the core is asked first.
    await eventually(in_core, "the core has the same users", errors=(grpc.aio.AioRpcError,))
    await eventually(counted, "the same users")
    assert await node.stop() == 0
    await node.start()
    await eventually(in_core, "the core has the same users", errors=(grpc.aio.AioRpcError,))
    await eventually(counted, "the same users")
    assert {row.split(" ")[0] for row in (await listed(node, "--failed"))[1:]} == {
        "unusable@e2e",
        "Refused@e2e",
        "user3@demo",
    }

    # Cured: changed, removed, and as it was.
    await panel.sync_user(make_user("unusable@e2e", TAGS))
    await panel.sync_user(make_user("Refused@e2e", []))
    await panel.sync_user(make_user("user3@demo", TAGS))
    assert await listed(node, "--failed") == ["22 desired, 22 applied, 0 rejected; node running"]
    assert set(await inbound_users(node.run_dir / "core.sock", "Trojan")) == expected | {"unusable@e2e"}


async def test_who_is_not_applied_yet_is_named(node: NodeProcess, panel: PanelClient) -> None:
    await panel.start(make_config([make_inbound("VLESS", "vless")]), make_users(3, ["VLESS"]))
    assert await listed(node, "--waiting") == ["3 desired, 3 applied, 0 rejected; node running"]
    core = core_pid(node)
    async with stopped(core):
        users = [make_user("new@e2e", ["VLESS"]), make_user("user1@demo", [])]
        change = asyncio.create_task(panel.sync_chunked(users))

        async def both_named() -> bool:
            # What is desired is stored while the core takes it, and the inbounds are those of who is stored.
            return (await listed(node, "--waiting"))[1:] == [
                "new@e2e  VLESS; not applied yet",
                "user1@demo  removed, still active in the core",
            ]

        await eventually(both_named, "two users wait")
    await change
    assert await listed(node, "--waiting") == ["3 desired, 3 applied, 0 rejected; node running"]


async def test_the_command_says_when_there_is_no_node(node: NodeProcess) -> None:
    environment = {**node.environment(), "STATE_DIR": str(node.state_dir / "elsewhere")}
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "users"], env=environment)
    assert code == 3
    assert f"no node has run with STATE_DIR={environment['STATE_DIR']}: there is no state.db" in output
