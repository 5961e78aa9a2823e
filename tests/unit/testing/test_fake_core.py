"""A core that is no process behaves as one does, as far as the node can tell."""

from __future__ import annotations

import pytest

from pgnode.errors import StartFailedError
from pgnode.testing.fake_core import SILENT, FakeController
from pgnode.testing.run_specs import make_run_spec
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.process.embedded import EmbeddedCore

BASE = make_run_spec("a").base


async def config() -> str:
    return "{}"


async def test_a_core_starts_serves_and_ends() -> None:
    core = FakeController(EmbeddedCore())
    running = await core.start(BASE, config)
    assert running.is_running()
    assert core.matches(running)
    assert core.api is not None
    assert await core.api.inbounds.inbound_tags(1.0) == {"a"}
    assert (await core.api.stats.sys_stats(1.0)).Uptime == 1
    core.api.channel.errors["GetSysStats"] = [SILENT]
    with pytest.raises(CoreApiError):
        await core.api.stats.sys_stats(1.0)
    await core.api.aclose()
    await core.stop()
    assert (await running.wait(), core.done) == (0, ["start", "stop"])
    assert "FakeRunningCore" in repr(running)
    assert "None" in repr(core)


async def test_there_are_never_two() -> None:
    core = FakeController()
    await core.start(BASE, config)
    with pytest.raises(AssertionError, match="two cores"):
        await core.start(BASE, config)


async def test_it_fails_where_a_test_wants_it_to() -> None:
    core = FakeController()
    core.start_errors, core.check_errors = [StartFailedError("no")], [StartFailedError("no")]
    for failing in (core.start(BASE, config), core.check(BASE)):
        with pytest.raises(StartFailedError):
            await failing
    await core.check(BASE)
    core.version_text = ""
    with pytest.raises(StartFailedError):
        await core.version()


async def test_users_come_and_go() -> None:
    core = FakeController()
    await core.start(BASE, config)
    assert core.api is not None
    users = core.api.users
    users.errors["bob"] = SILENT
    operations = [AlterOperation("a", "alice", b""), AlterOperation("a", "bob", b""), AlterOperation("a", "carol")]
    results = await users.alter_many(operations, 1.0)
    assert [error and error.kind for error in results] == [None, ErrorKind.DEADLINE, ErrorKind.NOT_FOUND]
    assert len(await users.inbound_users("a", 1.0)) == 1
