"""A change of parts of the running core, call by call."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import CoreUnavailableError, StartFailedError
from pgnode.settings import Settings
from pgnode.store.changes import Journal
from pgnode.supervisor.lifecycle.hot_change import CHANGING, HotChange, HotChangePlan, prepare_hot_change
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.users.table import UserTable
from pgnode.testing.fake_core import SILENT, FakeController
from pgnode.testing.run_specs import make_run_spec
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.config.diff import ConfigDiff, Decision, StartStrategy
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.scratch import Encoded
from pgnode.xray.proto import core_pb2, router_pb2, typed_message_pb2
from tests.unit.supervisor.lifecycle.stage import config_of, user, with_inbound

ANY = typed_message_pb2.TypedMessage(type="any")
VLESS = typed_message_pb2.TypedMessage(type="xray.proxy.vless.inbound.Config")
REFUSED = CoreApiError("proxy/vless: no", ErrorKind.REFUSED)


def inbound(tag: str, kind: typed_message_pb2.TypedMessage = VLESS) -> core_pb2.InboundHandlerConfig:
    return core_pb2.InboundHandlerConfig(tag=tag, receiver_settings=ANY, proxy_settings=kind)


def outbound(tag: str) -> core_pb2.OutboundHandlerConfig:
    return core_pb2.OutboundHandlerConfig(tag=tag, proxy_settings=ANY)


class Bench:
    """From a core with inbounds a and b to one with a, another b, and c."""

    def __init__(self) -> None:
        self.old, self.new = make_run_spec("a", "b"), make_run_spec("a", "b", "c")
        self.core = FakeController()
        self.core.come_up(self.old.base)
        self.diff = ConfigDiff(
            remove_inbounds=("b",),
            add_inbounds=("b", "c"),
            remove_outbounds=("out", "gone"),
            add_outbounds=("out",),
            rules=True,
        )
        self.encoded = Encoded({"b": inbound("b"), "c": inbound("c")}, {"out": outbound("out")})
        self.rules: router_pb2.Config | None = router_pb2.Config()
        self.users = UserTable(Journal())
        for name in ("alice", "bob"):
            self.users.put(name, user(name, "a", "b", "c").SerializeToString())

    def change(self) -> HotChange:
        return HotChange(self.core, HotChangePlan(self.diff, self.encoded, self.rules), self.new, 1.0)

    @property
    def api(self):  # type: ignore[no-untyped-def]
        assert self.core.api is not None
        return self.core.api


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    made.api.channel.outbounds = {"out", "gone"}
    return made


async def test_parts_are_removed_and_added_in_an_order_that_leaves_no_gap(bench: Bench) -> None:
    change = bench.change()
    await change.carry_out(bench.users)
    assert bench.core.running is not None
    assert bench.core.running.config_hash == CHANGING
    assert bench.api.channel.inbounds == {"a", "b", "c"}
    assert bench.api.channel.outbounds == {"out"}
    assert bench.api.channel.calls == [
        *("RemoveOutbound", "AddOutbound", "AddRule", "RemoveOutbound"),
        *("RemoveInbound", "AddInbound", "AddInbound", "ListInbounds"),
    ]
    await change.finished()
    assert bench.core.running.config_hash == bench.new.base.base_hash
    assert change.refused == {}


async def test_what_is_gone_already_is_removed(bench: Bench) -> None:
    bench.api.channel.inbounds.remove("b")
    bench.api.channel.outbounds.clear()
    await bench.change().carry_out(bench.users)
    assert bench.api.channel.inbounds == {"a", "b", "c"}


@pytest.mark.parametrize(
    "method", ["RemoveOutbound", "AddOutbound", "AddRule", "RemoveInbound", "AddInbound", "ListInbounds"]
)
async def test_a_call_without_an_answer_leaves_neither_config(bench: Bench, method: str) -> None:
    bench.api.channel.errors[method] = [SILENT]
    with pytest.raises(CoreUnavailableError, match="the core could not be changed: Deadline"):
        await bench.change().carry_out(bench.users)
    assert bench.core.running is not None
    assert bench.core.running.config_hash == CHANGING


async def test_a_user_whom_an_added_inbound_refuses_is_named(bench: Bench) -> None:
    bench.api.channel.errors["AddInbound"] = [REFUSED]
    bench.api.users.errors["bob"] = REFUSED
    change = bench.change()
    await change.carry_out(bench.users)
    assert change.refused == {"bob": str(REFUSED)}
    assert set(bench.api.users.users["b"]) == {"alice"}


async def test_users_without_an_answer_leave_neither_config(bench: Bench) -> None:
    bench.api.channel.errors["AddInbound"] = [REFUSED]
    bench.api.users.errors["bob"] = SILENT
    with pytest.raises(CoreUnavailableError):
        await bench.change().carry_out(bench.users)


async def test_an_inbound_that_is_refused_without_users_is_a_failure(bench: Bench) -> None:
    bench.api.channel.errors["AddInbound"] = [REFUSED, REFUSED]
    with pytest.raises(CoreUnavailableError):
        await bench.change().carry_out(bench.users)


async def test_an_inbound_whose_users_are_not_ours(bench: Bench) -> None:
    del bench.new.inbounds["c"]
    bench.encoded.inbounds["c"].CopyFrom(inbound("c", ANY))
    await bench.change().carry_out(bench.users)
    assert bench.api.channel.inbounds == {"a", "b", "c"}


async def test_an_inbound_that_should_not_be_there(bench: Bench) -> None:
    bench.api.channel.inbounds.add("stranger")
    with pytest.raises(CoreUnavailableError, match="inbound 'stranger' is still there"):
        await bench.change().carry_out(bench.users)


async def test_inbounds_that_are_away_are_not_missed(bench: Bench) -> None:
    bench.api.channel.inbounds = set()
    bench.api.inbounds.away = {"a": None, "b": None}
    await bench.change().carry_out(bench.users)
    assert bench.api.channel.inbounds == {"b", "c"}
    assert bench.api.inbounds.away == {"a": None}, "b is there again"


async def test_without_a_core_nothing_can_be_changed(bench: Bench) -> None:
    await bench.core.stop()
    with pytest.raises(CoreUnavailableError, match="the core has ended"):
        bench.change()


# --- the plan, made by a real scratch core ----------------------------------------------------------------------------


def asked(tmp_path: Path, **sections: object) -> tuple[Settings, RunSpec, Decision]:
    settings = Settings(state_dir=tmp_path)
    settings.run_dir.mkdir(parents=True)
    config = with_inbound(config_of("a", **sections), "b")
    spec = RunSpec.read(pb.Backend(config=config), settings)
    return settings, spec, Decision(StartStrategy.HOT_CHANGE, "x", ConfigDiff(add_inbounds=("b",), rules=True))


async def test_a_plan_is_made_by_a_scratch_core(tmp_path: Path) -> None:
    settings, spec, decision = asked(tmp_path)
    plan = await prepare_hot_change(settings, EmbeddedCore(), spec, decision)
    assert list(plan.encoded.inbounds) == ["b"]
    assert plan.rules is not None


async def test_rules_that_only_the_core_knows_cannot_be_planned(tmp_path: Path) -> None:
    settings, spec, decision = asked(
        tmp_path, routing={"balancers": [{"tag": "b", "selector": ["D"], "strategy": {"type": "new"}}]}
    )
    with pytest.raises(StartFailedError, match="only the core can compile these rules"):
        await prepare_hot_change(settings, EmbeddedCore(), spec, decision)


async def test_without_any_place_for_a_socket_none_is_made(tmp_path: Path) -> None:
    settings, spec, decision = asked(tmp_path)
    gone = settings.model_copy(update={"state_dir": tmp_path / "gone"})
    with pytest.raises(StartFailedError, match="no scratch core can be started: "):
        await prepare_hot_change(gone, EmbeddedCore(), spec, decision)
