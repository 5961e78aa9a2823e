"""The embedded Valkey, started for real."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from pgnode.bus.connection import connect
from pgnode.settings import Settings, bus_password, load
from pgnode.supervisor.processes import valkey
from pgnode.supervisor.processes.child import Child
from pgnode.supervisor.processes.pid_registry import PidRegistry


@pytest.fixture
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="pgn") as folder:  # a socket's path must be short
        found = load(state_dir=folder)
        found.run_dir.mkdir()
        yield found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_it_serves_on_a_socket_for_this_user_alone(settings: Settings) -> None:
    child = Child(valkey.spec(settings), PidRegistry(settings.run_dir / "children.json"))
    await child.start()
    client = connect(f"unix://{settings.valkey_socket}", connections=1)
    try:
        assert await client.ping()
        assert mode(settings.valkey_socket) == 0o700
        assert (await client.config_get("port"))["port"] == "0"
    finally:
        await client.aclose()
        await child.stop()
    assert child.pid is None


async def test_whoever_only_reaches_its_socket_can_do_nothing(settings: Settings) -> None:
    password = bus_password.make(settings.run_dir)
    assert password is not None
    spec = valkey.spec(settings)
    assert not any(password in word for word in (*spec.command, *spec.environment.values()))
    child = Child(spec, PidRegistry(settings.run_dir / "children.json"))
    for tidied_up in (False, True):
        if tidied_up:
            bus_password.path_in(settings.run_dir).unlink()
        await child.start()
        stranger = connect(f"unix://{settings.valkey_socket}", connections=1)
        ours = connect(settings.bus_url, connections=1)
        try:
            with pytest.raises(RedisError, match=r"[Aa]uthenticat"):
                await stranger.ping()
            assert await ours.ping()
            assert password not in str(child.last_lines)
        finally:
            await stranger.aclose()
            await ours.aclose()
            await child.stop()


async def test_whatever_is_in_place_of_its_socket_is_no_obstacle(settings: Settings) -> None:
    settings.valkey_socket.mkdir()
    child = Child(valkey.spec(settings), PidRegistry(settings.run_dir / "children.json"))
    await child.start()
    await child.stop()
    assert settings.valkey_socket.with_name("valkey.sock.unusable").is_dir()
    settings.valkey_socket.unlink(missing_ok=True)
    settings.valkey_socket.touch()
    await child.start()
    await child.stop()


def test_its_output_may_be_shown(settings: Settings) -> None:
    assert not valkey.spec(settings).quiet, "the level of the log decides"
