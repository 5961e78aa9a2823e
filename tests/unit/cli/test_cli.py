"""The commands as the operator types them: on a store without a node, and beside something that answers like one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgnode.bus.snapshots import Polled
from pgnode.cli import main
from pgnode.cli import stats as stats_module
from pgnode.cli.stats import show_stats
from pgnode.cli.target import Named, Target
from pgnode.cli.traffic import ShownTraffic
from pgnode.cli.users import show_users
from pgnode.demo import show
from pgnode.errors import PortInUseError
from pgnode.os_support import streams
from pgnode.os_support.aio import end_tasks
from pgnode.settings import load
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.rows import LedgerRow, RejectedUser
from pgnode.supervisor import checked_start as supervisor
from pgnode.supervisor.control.messages import SOCKET_NAME, TRAFFIC, USERS
from pgnode.supervisor.control.server import ControlServer
from pgnode.supervisor.host import identity
from pgnode.wire import service_pb2 as pb
from tests.support.identities import make_identity
from tests.support.polling import eventually


@pytest.fixture(autouse=True)
def state_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a store, in which no node runs."""
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    for name in ("REDIS_URL", "REDIS_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIR", str(made))
    monkeypatch.chdir(made)
    database = Database.open(made / "state.db")
    database.write(
        StoreChanges(
            meta={"core_run": 3},
            users={name: pb.User(email=name, inbounds=["VLESS"]).SerializeToString() for name in ("alice", "bob")},
            rejected={"carol": RejectedUser("Carol", "too long", 0, b"")},
            counters={"user>>>alice>>>traffic>>>uplink": LedgerRow(700, 200, 700, 1)},
        )
    )
    database.close()
    yield made
    shutil.rmtree(made)


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


@contextlib.asynccontextmanager
async def node(*, answers: bool = True) -> AsyncIterator[None]:
    """What a running node says over its control socket, with its lock held."""
    settings = load()
    settings.run_dir.mkdir(exist_ok=True)

    async def users(_values: Mapping[str, Any]) -> dict[str, Any]:
        return {"state": "running", "panel_away": False, "to_add": ["bob"], "to_remove": [], "uncertain": []}

    async def traffic(_values: Mapping[str, Any]) -> dict[str, Any]:
        polled = asdict(Polled(100, 5_000, "", counters=1, took_ms=2))
        return {"state": "running", "core_run": 4, "polled": polled, "online": {"Alice": 1}}

    control = ControlServer(settings.run_dir / SOCKET_NAME, {USERS: users, TRAFFIC: traffic})
    tasks = [asyncio.create_task(control.run())] if answers else []
    try:
        with identity.lock_state_dir(settings):
            if answers:
                await eventually((settings.run_dir / SOCKET_NAME).exists, "it listens")
            yield
    finally:
        await end_tasks(tasks)


async def test_a_node_that_is_down_shows_what_it_stored() -> None:
    users = await run("users")
    assert users.exit_code == 3
    first, *rows = users.output.splitlines()
    one = await run("users", "Alice", "--json")
    assert [user["email"] for user in json.loads(one.output)["users"]] == ["alice"]
    nobody = await run("users", "nobody")
    assert (nobody.exit_code, "no user nobody is desired" in nobody.output) == (1, True)
    assert first.startswith("2 desired, 1 rejected; the node is not running; this is the state it stored at 20")
    assert [row.split("  ")[0] for row in rows] == ["alice", "bob", "Carol"]
    stats = await run("stats")
    assert stats.exit_code == 3
    assert stats.output.startswith("the node is not running; this is the state it stored at 20")
    assert "core run 3" in stats.output
    found = json.loads((await run("stats", "--json")).output)
    assert (found["state"], found["core_runs"], found["age_seconds"]) == (None, 3, None)
    assert found["stored_at"] > 1_700_000_000
    assert found["owed_bytes"]["users"] == 500


async def test_a_running_node_is_asked(state_dir: Path) -> None:
    async with node():
        users = await run("users", "--waiting")
        assert users.output.splitlines() == [
            "2 desired, 1 applied, 1 not yet, 1 rejected; node running",
            "bob  VLESS; not applied yet",
        ]
        stats = await run("stats", "--top", "1")
        assert stats.output.startswith("node running, core run 4\nread 0.")
        assert "users: 1 with counters; 1 online" in stats.output
        assert (users.exit_code, stats.exit_code) == (0, 0)
        top = await run("users", "--top")
        assert [line.split() for line in top.output.splitlines()][1:3] == [
            ["user", "down", "up", "total", "addresses"],
            ["alice", "0", "bytes", "700", "bytes", "700", "bytes", "1"],
        ]
        assert len((await run("users", "--top", "1")).output.splitlines()) == 3
        [alice] = json.loads((await run("users", "ALICE", "--json")).output)["users"]
        assert (alice["uplink_bytes"], alice["downlink_bytes"], alice["online"]) == (700, 0, 1)


async def test_a_node_that_does_not_answer(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def shown(command: Callable[[], int]) -> str:
        assert await asyncio.to_thread(command) == 4
        return capsys.readouterr().out

    async with node(answers=False):
        silent = f"the supervisor (pid {os.getpid()}) does not answer: see pgnode status"
        assert silent in await shown(lambda: show_users(ask_seconds=-0.9))
        stats = await shown(lambda: show_stats(json_wanted=False, watch=False, top=1, ask_seconds=-0.9))
        assert silent in stats
        assert "users: 1 with counters; 0 online" in stats


async def test_without_a_store_it_is_told(state_dir: Path) -> None:
    (state_dir / "state.db").unlink()
    for command in ("users", "stats"):
        result = await run(command)
        assert result.exit_code == 3
        assert f"no node has run with STATE_DIR={state_dir}: there is no state.db" in result.output


async def test_a_store_that_cannot_be_read_is_told(state_dir: Path) -> None:
    (state_dir / "state.db").write_bytes(b"garbage" * 1000)
    result = await run("stats")
    assert result.exit_code == 2
    assert f"pgnode: {state_dir}/state.db cannot be read: the file is damaged" in result.output


@pytest.mark.parametrize("json_wanted", [True, False])
async def test_watching_goes_on_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, json_wanted: bool
) -> None:
    shown = 0
    read = stats_module._read

    async def counted(target: Target, ask_seconds: float) -> ShownTraffic:
        nonlocal shown
        shown += 1
        if shown == 3:
            raise KeyboardInterrupt
        return await read(target, ask_seconds)

    monkeypatch.setattr(stats_module, "_read", counted)
    code = await asyncio.to_thread(lambda: show_stats(json_wanted=json_wanted, watch=True, top=20, watch_seconds=0.01))
    assert code == 0
    assert shown == 3
    if json_wanted:
        assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("arguments", [("--json",), ()])
async def test_watching_is_asked_for_by_an_option(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    asked = dict[str, object]()

    def show(_named: Named, **options: object) -> int:
        asked.update(options)
        return 0

    monkeypatch.setattr(stats_module, "show_stats", show)
    assert (await run("stats", "--watch", "--top", "3", *arguments)).exit_code == 0
    assert asked == {"json_wanted": bool(arguments), "watch": True, "top": 3}


async def test_run_and_demo_end_with_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_given: object) -> int:
        raise PortInUseError("port 62050 is in use")

    def refuse(*_given: object) -> None:
        raise OSError("no exec")

    # This process and its streams are the test's.
    monkeypatch.setattr(streams, "make_safe", lambda: None)
    monkeypatch.setattr(os, "execve", refuse)
    monkeypatch.setattr(supervisor, "run", lambda *_given: 130)
    assert (await run("run")).exit_code == 130
    monkeypatch.setattr(supervisor, "run", taken)
    result = await run("run")
    assert (result.exit_code, result.output) == (4, "pgnode: port 62050 is in use\n")
    monkeypatch.setattr(show, "run_demo", lambda _report: 7)
    assert (await run("demo")).exit_code == 7


async def test_key_and_certificate_of_a_node(state_dir: Path) -> None:
    settings = load()
    who = make_identity(settings)
    assert (await run("key", "show")).stdout == f"{who.api_key}\n"
    assert (await run("key", "rotate", "--overlap", "soon")).exit_code == 2
    assert "not valid any more" in (await run("key", "rotate", "--overlap", "0")).stdout
    assert who.api_key not in (await run("key", "show", "--block")).stdout
    assert json.loads((await run("key", "forget-previous", "--json")).stdout) == {"forgotten": False}
    assert "self-signed" in (await run("cert", "show")).stdout
    renewed = await run("cert", "renew", "--name", "203.0.113.9", "--json")
    assert "203.0.113.9" in json.loads(renewed.stdout)["names"]
    pair = [str(path) for path in (settings.cert_file, settings.cert_key_file)]
    assert (await run("cert", "check", *pair)).exit_code == 0
    assert (await run("cert", "check", *reversed(pair))).exit_code == 2


@pytest.mark.parametrize("words", [(), ("key",), ("cert",)])
async def test_without_a_word_the_help_is_shown_and_that_is_no_error(words: tuple[str, ...]) -> None:
    shown = await run(*words)
    assert (shown.exit_code, "Commands:" in shown.output) == (0, True)


async def test_a_node_named_before_an_order_is_not_lost(tmp_path: Path) -> None:
    for option in (("--state-dir", str(tmp_path)), ("--json",)):
        ordered = await run("workers", *option, "restart")
        assert (ordered.exit_code, "options belong behind restart, not before it" in ordered.output) == (2, True)
    ordered = await run("workers", "restart", "--state-dir", str(tmp_path))
    assert (ordered.exit_code, ordered.output) == (3, f"pgnode: no node runs with STATE_DIR={tmp_path}\n")


async def test_a_folder_that_may_not_be_read_is_told_as_every_folder_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Also for root, who may read everything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused = await run("status", "--state-dir", str(tmp_path))
    assert (refused.exit_code, "is for user" in refused.output) == (1, True)


async def test_arguments_that_are_not_allowed_end_with_2(tmp_path: Path) -> None:
    for words in (
        ("status", "--node", "../x"),
        ("logs", "--since", "soon"),
        ("log-level", "debug", "--for", "0s"),
        ("status", "--nothing"),
        ("users", "--top", "alice"),
        ("status", "--env-file", str(tmp_path / "no.env")),
    ):
        assert (await run(*words)).exit_code == 2, words
