"""The state that 0.5.0 left is taken over once, from its files or from a Redis, and nothing of it is lost."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.errors import StoreUnusableError
from pgnode.settings import Settings
from pgnode.store.state import StoredState
from pgnode.store.writer import StoreWriter
from pgnode.supervisor.persistence.import_v05 import set_old_folder_aside, take_over
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.wire import service_pb2 as pb
from tests.support import earlier_state as earlier
from tests.support.valkey import running_valkey


@pytest.fixture
def state_dir() -> Iterator[Path]:
    # Short: a socket lies in it.
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    (made / "run").mkdir()
    yield made
    shutil.rmtree(made)


async def taken_over(settings: Settings) -> StoredState:
    store = StoreWriter(settings.store_path)
    try:
        assert (await store.open()).origin == ""
        return await take_over(settings, store, PidRegistry(settings.run_dir / "children.json"))
    finally:
        await store.close()


def check(state: StoredState) -> None:
    assert state.origin == "0.5"
    assert state.users == {
        (user := earlier.user(number)).email: user.SerializeToString(deterministic=True)
        for number in range(earlier.USERS)
    }
    assert {user.email: user.cause for user in state.rejected.values()} == {
        f"{name}@import": f"vless id '{name} is no UUID' is not a UUID" for name in ("bad", "worse")
    }
    assert (state.active, state.core_run) == (True, 1)
    assert '"first.example"' in pb.Backend.FromString(state.backend or b"").config
    assert '"added.example"' in state.routing["rules"]
    assert state.routing["overrides"] == '{"pair": "BLOCK"}'
    counters = {name: row for name, row in state.counters.items() if name.startswith("user>>>")}
    assert {name: row.total for name, row in counters.items()} == earlier.moved()
    assert {name: row.reported for name, row in counters.items() if row.reported} == earlier.given()
    [part] = state.loans.values()
    assert {stat.name for stat in pb.StatResponse.FromString(part.body).stats} == {earlier.ON_LOAN}
    assert list(state.taken.values()) == ["users"]
    assert state.run is not None
    assert state.run.number == 1


async def test_from_the_files_of_the_embedded_valkey(state_dir: Path) -> None:
    earlier.unpack(state_dir)
    settings = Settings(state_dir=state_dir)
    check(await taken_over(settings))
    assert not (state_dir / "store").exists()
    assert (state_dir / "store.0.5" / "appendonlydir").is_dir(), "left alone under another name"
    assert not (state_dir / "run" / "import.sock").exists()
    again = StoreWriter(settings.store_path)
    check(await again.open())
    await again.close()


def test_a_folder_that_an_earlier_supervisor_did_not_live_to_rename(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir)
    set_old_folder_aside(settings)
    earlier.unpack(state_dir)
    set_old_folder_aside(settings)
    assert [path.name for path in state_dir.glob("store*")] == ["store.0.5"]
    (state_dir / "store").mkdir()
    set_old_folder_aside(settings)
    assert (state_dir / "store").is_dir(), "there is one by that name"


async def test_from_an_external_redis_which_keeps_it(state_dir: Path) -> None:
    async with running_valkey() as valkey:
        valkey.kill()
        valkey.empty()
        earlier.unpack(state_dir)
        shutil.copytree(state_dir / "store" / "appendonlydir", valkey.folder / "appendonlydir")
        await valkey.start()
        check(await taken_over(Settings(state_dir=state_dir, redis_url=valkey.url)))
        assert (state_dir / "store").exists(), "is not this node's"
        other = state_dir / "other"
        other.mkdir()
        check(await taken_over(Settings(state_dir=other, redis_url=valkey.url)))
        third = state_dir / "third"
        third.mkdir()
        empty = await taken_over(Settings(state_dir=third, redis_url=valkey.url, redis_prefix="another"))
        assert empty == StoredState(origin="new")


async def test_a_node_that_is_new_has_nothing_to_take_over(state_dir: Path) -> None:
    assert await taken_over(Settings(state_dir=state_dir)) == StoredState(origin="new")


async def test_files_that_cannot_be_read_are_told(state_dir: Path) -> None:
    earlier.unpack(state_dir)
    (state_dir / "store" / "appendonlydir" / "appendonly.aof.1.incr.aof").write_bytes(b"*9\r\ngarbage\r\n" * 100)
    with pytest.raises(
        StoreUnusableError, match=r"state of an earlier version in .*/store cannot be taken over"
    ) as caught:
        await taken_over(Settings(state_dir=state_dir))
    assert "move it away to begin without" in str(caught.value)
    assert (state_dir / "store").exists()


async def test_a_redis_that_is_away_is_told(state_dir: Path) -> None:
    with pytest.raises(StoreUnusableError, match="the Redis at REDIS_URL cannot be taken over"):
        await taken_over(Settings(state_dir=state_dir, redis_url="unix:///nowhere"))
