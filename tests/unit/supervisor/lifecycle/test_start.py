"""Starts over a core that is no process: which way each goes, and what is left when one fails."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pgnode.bus.commands import Kind
from pgnode.errors import (
    CoreUnavailableError,
    InvalidRequestError,
    NodeError,
    StartFailedError,
    StoreUnavailableError,
    UnsupportedError,
)
from pgnode.supervisor.lifecycle.states import State
from pgnode.testing.fake_core import SILENT
from pgnode.testing.wireguard import interface
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user, with_inbound

REFUSED = CoreApiError("proxy/vless: no", ErrorKind.REFUSED)
NOT_UP = StartFailedError("the core ended with exit code 255 while starting")


async def test_a_first_start(stage: Stage) -> None:
    info = await stage.start(config_of("a"), user("alice", "a"), keep_alive=30)
    assert (info.started, info.core_version, stage.state) == (True, "26.10.10", State.RUNNING)
    assert "alice" in stage.core.configs[0]
    assert stage.core.done == ["warm up", "start", "discard runner"]
    assert stage.traffic.done == ["core ready"]
    assert stage.committer.meta["active"] == 1
    assert stage.committer.meta["core_run"] == 1
    assert (stage.told.state, stage.told.core_ready, stage.told.keep_alive_seconds) == ("running", True, 30)
    assert stage.told.starts == {"new core": 1}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (pb.Backend.FromString(b"\x08\x02"), UnsupportedError),
        (pb.Backend(type=pb.WIREGUARD, config="{}"), StartFailedError),
        (pb.Backend(), InvalidRequestError),
        (pb.Backend(config="{"), StartFailedError),
    ],
)
async def test_what_is_no_config_of_ours_is_refused(stage: Stage, message: pb.Backend, error: type[NodeError]) -> None:
    with pytest.raises(error):
        await stage.do(Kind.START, message.SerializeToString())
    assert (stage.state, stage.core.done) == (State.IDLE, [])


async def test_warnings_of_a_config_are_no_obstacle(stage: Stage) -> None:
    document = json.loads(config_of("a"))
    document["inbounds"][0]["settings"]["clients"] = [{"id": "x"}]
    await stage.start(json.dumps(document))
    assert stage.state is State.RUNNING


async def test_a_start_that_does_not_come_up_leaves_nothing(stage: Stage) -> None:
    stage.core.start_errors = [NOT_UP]
    with pytest.raises(StartFailedError, match=r"^the core ended with exit code 255 while starting$"):
        await stage.start(config_of("a"), user("alice", "a"))
    assert (stage.state, stage.core.running) == (State.IDLE, None)
    assert stage.committer.meta["active"] == 0
    assert len(stage.node.users.table) == 0
    assert stage.core.done[-1] == "discard runner"


async def test_the_same_config_changes_users_in_the_core(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config, user("alice", "a"))
    await stage.start(config, user("alice", "a"), user("bob", "a"))
    assert stage.users_in_core == {"a": {"bob"}}
    assert stage.core.done.count("start") == 1
    assert stage.told.starts == {"new core": 1, "same core": 1}


async def test_another_config_is_a_new_core(stage: Stage) -> None:
    await stage.start(config_of("a"), user("alice", "a"))
    await stage.start(config_of("a", dns={"servers": ["localhost"]}), user("bob", "a"))
    assert stage.core.done == [
        *("warm up", "start", "discard runner"),
        *("warm up", "check", "stop", "start", "discard runner"),
    ]
    assert "bob" in stage.core.configs[1]
    assert "alice" not in stage.core.configs[1]
    assert (stage.committer.meta["core_run"], stage.told.core_run) == (2, 2)
    assert "last poll" in stage.traffic.done


async def test_a_config_that_the_core_refuses_disturbs_nothing(stage: Stage) -> None:
    await stage.start(config_of("a"), user("alice", "a"))
    running = stage.core.running
    stage.core.check_errors = [StartFailedError("log: unknown loglevel")]
    with pytest.raises(StartFailedError, match=r"^log: unknown loglevel$"):
        await stage.start(config_of("a", dns={"servers": ["localhost"]}))
    assert (stage.state, stage.core.running) == (State.RUNNING, running)
    assert set(stage.node.users.table.keys()) == {"alice"}


async def test_a_port_in_use_is_told_before_anything_is_touched(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config)
    port = json.loads(config)["inbounds"][0]["port"]
    document = json.loads(config_of("b", dns={"servers": ["localhost"]}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", document["inbounds"][0]["port"]))
        taken.listen()
        with pytest.raises(StartFailedError, match="port"):
            await stage.start(json.dumps(document))
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 1)
    # The running core's own ports are free for the next one.
    with socket.socket() as core:
        core.bind(("127.0.0.1", port))
        core.listen()
        document["inbounds"][0]["port"] = port
        await stage.start(json.dumps(document))
    assert stage.told.core_run == 2


async def test_the_previous_core_is_restored(stage: Stage) -> None:
    await stage.start(config_of("a"), user("alice", "a"))
    stage.core.start_errors = [NOT_UP]
    with pytest.raises(StartFailedError, match=r"; the previous core was restored$"):
        await stage.start(config_of("b", dns={"servers": ["localhost"]}), user("bob", "b"))
    assert stage.state is State.RUNNING
    assert set(stage.node.users.table.keys()) == {"alice"}
    assert "alice" in stage.core.configs[-1]
    assert stage.told.core_run == 2


async def test_neither_the_new_nor_the_previous_core_comes_up(stage: Stage) -> None:
    await stage.start(config_of("a"), user("alice", "a"))
    stage.core.start_errors = [NOT_UP, StartFailedError("no memory")]
    with pytest.raises(StartFailedError, match=r"; and the previous config did not come up either: no memory$"):
        await stage.start(config_of("b", dns={"servers": ["localhost"]}))
    assert stage.told.state == "recovering"
    await stage.pause(0.0)
    assert stage.state is State.RUNNING
    assert "alice" in stage.core.configs[-1]


async def test_users_that_cannot_be_had_are_left_out(stage: Stage) -> None:
    await stage.start(config_of("a"), user("alice", "a"), pb.User(email="bad", inbounds=["a"], proxies=pb.Proxy()))
    bad = pb.User(email="worse", inbounds=["a"], proxies=pb.Proxy(vless=pb.Vless(id="no uuid")))
    await stage.start(config_of("a", dns={"servers": ["localhost"]}), user("alice", "a"), bad)
    assert "worse" not in stage.node.users.table.desired
    assert "worse" in stage.node.users.rejected


# --- parts of the core -----------------------------------------------------------------------------------------------


async def test_an_inbound_more_is_a_change_of_the_running_core(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config, user("alice", "a"))
    running = stage.core.running
    await stage.start(with_inbound(config, "b"), user("alice", "a", "b"))
    assert stage.core.running is running
    assert stage.core.api is not None
    assert {"a", "b"} <= stage.core.api.channel.inbounds
    assert stage.told.starts == {"new core": 1, "hot change": 1}
    assert stage.core.done[-1] == "follow"
    assert running is not None
    assert running.config_hash == stage.node.require_running().base.base_hash


async def test_parts_that_cannot_be_prepared_are_a_new_core(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config)
    stage.prepare_error = StartFailedError("no scratch core")
    await stage.start(with_inbound(config, "b"))
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 2)
    assert stage.told.starts == {"new core": 2}


@pytest.mark.parametrize("method", ["AddInbound", "ListInbounds", "ListRule"])
async def test_a_change_that_fails_half_way_is_a_new_core(stage: Stage, method: str) -> None:
    config = config_of("a")
    await stage.start(config, user("alice", "a"))
    stage.fail_call(method, SILENT)
    await stage.start(with_inbound(config, "b"), user("alice", "a", "b"))
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 2)
    assert stage.told.starts == {"new core": 1, "hot change": 1, "hot change, failed": 1}


async def test_a_change_that_fails_half_way_and_whose_new_core_does_not_come_up(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config, user("alice", "a"))
    stage.fail_call("AddInbound", SILENT)
    stage.core.start_errors = [NOT_UP]
    with pytest.raises(StartFailedError, match=r"; the previous core was restored$"):
        await stage.start(with_inbound(config, "b"), user("alice", "a", "b"))
    assert stage.state is State.RUNNING
    assert list(stage.node.require_running().inbounds) == ["a"]


async def test_a_user_whom_the_core_refuses_in_a_new_inbound_is_as_before(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config, user("alice", "a"), user("bob", "a"))
    assert stage.core.api is not None
    stage.core.api.users.errors["bob"] = REFUSED
    stage.fail_call("AddInbound", REFUSED)
    await stage.start(with_inbound(config, "b"), user("alice", "a", "b"), user("bob", "a", "b"))
    assert stage.state is State.RUNNING
    assert stage.users_in_core["b"] == {"alice"}
    assert "bob" in stage.node.users.rejected


async def test_a_user_whom_the_core_refuses_in_an_inbound_that_stayed(stage: Stage) -> None:
    config = config_of("a", "c")
    await stage.start(config, user("alice", "a"), user("bob", "a"))
    assert stage.core.api is not None
    stage.core.api.users.errors["bob"] = REFUSED
    await stage.start(with_inbound(config, "b"), user("alice", "a", "b"), user("bob", "a", "c"))
    assert stage.state is State.RUNNING
    assert "bob" in stage.node.users.rejected


async def test_users_whom_the_core_does_not_answer_for_make_a_change_fail(stage: Stage) -> None:
    config = config_of("a", "c")
    await stage.start(config, user("alice", "a"))
    assert stage.core.api is not None
    stage.core.api.users.errors["alice"] = SILENT
    await stage.start(with_inbound(config, "b"), user("alice", "a", "c"))
    # Nothing is certain then, and a new core has everybody.
    assert stage.told.core_run == 2
    assert stage.told.starts["hot change, failed"] == 1


# --- the core stays --------------------------------------------------------------------------------------------------


async def test_users_whom_the_core_does_not_answer_for_are_the_callers_error(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config)
    assert stage.core.api is not None
    stage.core.api.users.errors["bob"] = SILENT
    with pytest.raises(CoreUnavailableError, match="did not take all users"):
        await stage.start(config, user("bob", "a"))
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 1)
    assert "bob" in stage.node.users.table.desired


async def test_a_fault_while_users_are_changed_leads_to_a_new_core(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("a")
    await stage.start(config)

    async def fault(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.node.users, "apply", fault)
    await stage.start(config, user("bob", "a"))
    assert (stage.state, stage.told.core_run) == (State.RUNNING, 2)
    assert "bob" in stage.core.configs[-1]


async def test_a_config_that_fails_again_and_again_costs_nobody_the_connection(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config, user("alice", "a"))
    running = stage.core.running
    for broken in ("{", '{"inbounds": []}', config_of("a", metrics={"listen": "x"})) * 5:
        await stage.stop()
        await stage.pause(10.0)
        with pytest.raises(StartFailedError):
            await stage.start(broken, user("bob", "a"))
        assert (stage.state, stage.committer.meta["active"]) == (State.LINGERING, 1)
        assert stage.node.users.table.get("alice") is not None
    await stage.pause(1000.0)
    assert stage.core.running is running
    # A stop that nothing follows is meant.
    await stage.stop()
    await stage.pause(stage.settings.stop_linger_seconds)
    assert (stage.state, stage.core.running) == (State.IDLE, None)


async def test_a_third_stop_and_start_within_a_minute_is_a_new_core(stage: Stage) -> None:
    config = config_of("a")
    await stage.start(config)
    first = stage.core.running
    for _ in range(2):
        await stage.stop()
        await stage.pause(5.0)
        await stage.start(config)
        assert stage.core.running is first
    await stage.stop()
    await stage.start(config)
    assert stage.core.running is not first
    assert stage.told.core_run == 2


async def test_reasons_of_refused_starts_are_in_the_log(stage: Stage) -> None:
    with capture_logs() as logs:
        for config in ("{", "{", "[]", "{"):
            with pytest.raises(StartFailedError):
                await stage.start(config)
    said = [entry["reason"][:24] for entry in logs if entry["event"] == "start refused"]
    assert said == ["config is not valid JSON", "config must be a JSON ob", "config is not valid JSON"]


async def test_a_change_of_the_log_alone_drops_nobody(tmp_path: Path) -> None:
    for setting, core_run, waiting in (
        ("next", 1, "level debug (the core runs with warning)"),
        ("now", 2, ""),
    ):
        stage = Stage(tmp_path, apply_log_level=setting)
        config = config_of("a")
        await stage.start(config)
        document = json.loads(config)
        await stage.start(json.dumps({**document, "log": {"loglevel": "error"}}))
        assert (stage.told.core_run, stage.told.waiting) == (1, "")
        await stage.start(json.dumps({**document, "log": {"loglevel": "debug"}}))
        assert (stage.told.core_run, stage.told.waiting) == (core_run, waiting)
        assert stage.told.starts.get("same core, log waits", 0) == (1 if waiting else 0)


async def test_a_store_that_takes_nothing_is_told_before_anything_is_touched(stage: Stage) -> None:
    same = config_of("a")
    stage.committer.no_room = StoreUnavailableError("not stored: no room on the disk")
    with pytest.raises(StoreUnavailableError):
        await stage.start(same)
    assert (stage.state, stage.core.running) == (State.IDLE, None)
    stage.committer.no_room = None
    await stage.start(same)
    running = stage.core.running
    stage.committer.no_room = StoreUnavailableError("not stored: no room on the disk")
    with pytest.raises(StoreUnavailableError):
        await stage.start(config_of("b", log={"loglevel": "debug"}))
    assert (stage.told.state, stage.core.running) == ("running", running)
    # Users alone end nothing: the core has them, and the answer says what the store did not take.
    await stage.start(same, user("alice", "a"))
    assert (stage.core.running, stage.core.done.count("start")) == (running, 1)


async def test_a_core_that_knows_no_wireguard_users_is_told_of(stage: Stage) -> None:
    message = pb.Backend(type=pb.WIREGUARD, config=json.dumps(interface())).SerializeToString()
    stage.core.version_text = "26.6.22"
    with pytest.raises(
        UnsupportedError, match=r"the core 26\.6\.22 is too old for WireGuard users: 26\.6\.27 is needed"
    ):
        await stage.do(Kind.START, message)
    stage.core.version_text = "26.10.10"
    await stage.do(Kind.START, message)
    assert (stage.state, stage.told.core_type) == (State.RUNNING, "wireguard")
