"""A node over a core that is no process, a Redis that keeps nothing and a store that takes everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pgnode.bus.commands import Command, Kind
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import STATE, NodeStatus
from pgnode.errors import StoreUnavailableError
from pgnode.settings import Settings
from pgnode.store.changes import Journal, Scope
from pgnode.store.state import StoredState
from pgnode.supervisor.lifecycle.assembly import assemble_node
from pgnode.supervisor.lifecycle.hot_change import HotChangePlan
from pgnode.supervisor.lifecycle.kept_spec import encode
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.restore import ResolveUpdate
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.testing.clock import ManualClock, run_ready
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.fake_core import FakeController, FakeCoreApi, FakeRunningCore
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.diff import Decision
from pgnode.xray.process.base import Core
from pgnode.xray.process.scratch import Encoded
from pgnode.xray.proto import core_pb2, typed_message_pb2
from tests.support.polling import eventually
from tests.unit.supervisor.lifecycle.scripts import IDLE

_SETTINGS = typed_message_pb2.TypedMessage(type="settings")


class FakePipeline:
    """Takes commands and does nothing with them."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis

    def hset(self, _key: str, mapping: Mapping[str, Any]) -> None:
        self._redis.written += 1

    def publish(self, _channel: str, _message: bytes) -> None:
        pass

    async def execute(self) -> None:
        if self._redis.error is not None:
            raise self._redis.error


class FakeRedis:
    def __init__(self) -> None:
        self.written = 0
        self.error: Exception | None = None

    def pipeline(self, *, transaction: bool) -> FakePipeline:
        assert transaction
        return FakePipeline(self)


class FakeCommitter:
    """Takes the journal as a store does."""

    def __init__(self, journal: Journal, redis: FakeRedis, tell: Callable[[Any], None]) -> None:
        self._journal = journal
        self._redis = redis
        self.meta: dict[str, Any] = {}
        self.users: dict[str, bytes | None] = {}
        self.routing: dict[str, str | None] = {}
        self.commits = 0
        #: Why the store takes nothing.
        self.no_room: StoreUnavailableError | None = None
        self._tell = tell

    async def require_room(self, needed_bytes: int) -> None:
        assert needed_bytes > 0
        if self.no_room is not None:
            raise self.no_room

    async def commit(self) -> bool:
        self.commits += 1
        changes = self._journal.take(Scope.DESIRED)
        self.meta |= changes.meta
        self.users |= changes.users
        self.routing |= changes.routing
        if changes:
            self._tell(FakePipeline(self._redis))
        return True


class FakeTraffic:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.counters_known = True

    def core_ready(self) -> None:
        self.done.append("core ready")

    async def last_poll(self, _api: object, _run: str) -> None:
        self.done.append("last poll")

    async def write_off(self, _api: object, _run: str, done: Callable[[], None] = lambda: None) -> None:
        self.done.append("write off")
        if self.counters_known:
            done()

    async def store_now(self) -> None:
        self.done.append("store")


class Stage:
    """Commands go in as the dispatcher would do them: one at a time, with the core lock, and stored afterwards."""

    def __init__(self, folder: Path, *, resolve_update: ResolveUpdate | None = None, **settings: Any) -> None:
        self.settings = Settings(state_dir=folder, **{"core_call_timeout_seconds": 1.0, **settings})
        self.core = FakeController()
        self.clock = ManualClock()
        self.redis = FakeRedis()
        self.journal = Journal()
        self.committer = FakeCommitter(self.journal, self.redis, self._tell)
        self.traffic = FakeTraffic()
        self.inbound_stats = InboundStats(self.settings.inbound_stats, self.journal)
        self.snapshots = SnapshotWriter(Keys("t:"))
        self.prepare_error: Exception | None = None
        self.node: Node = assemble_node(
            self.settings,
            core=self.core,
            redis=cast(Any, self.redis),
            journal=self.journal,
            committer=cast(Any, self.committer),
            snapshots=self.snapshots,
            traffic=cast(Any, self.traffic),
            inbound_stats=self.inbound_stats,
            clock=self.clock,
            prepare=self._prepare,
            resolve_update=resolve_update,
            life=NodeLife(IDLE),
        )
        self.lifecycle, self.life = self.node._lifecycle, self.node._life

    def _tell(self, pipe: Any) -> None:
        self.node.tell(pipe)

    async def _prepare(self, _settings: Settings, _core: Core, new: RunSpec, decision: Decision) -> HotChangePlan:
        """Make a plan without a scratch core."""
        if self.prepare_error is not None:
            raise self.prepare_error
        vless = typed_message_pb2.TypedMessage(type="xray.proxy.vless.inbound.Config")
        inbounds = {
            tag: core_pb2.InboundHandlerConfig(tag=tag, receiver_settings=_SETTINGS, proxy_settings=vless)
            for tag in decision.diff.add_inbounds
        }
        outbounds = {
            tag: core_pb2.OutboundHandlerConfig(tag=tag, proxy_settings=_SETTINGS)
            for tag in decision.diff.add_outbounds
        }
        return HotChangePlan(decision.diff, Encoded(inbounds, outbounds), None)

    # --- commands -------------------------------------------------------------------------------------------------

    async def do(self, kind: Kind, body: bytes = b"") -> bytes:
        async with self.node.core_lock:
            try:
                answer = await self.node.changes[kind](Command("0-1", "1", kind, "w", 1000, body))
                assert isinstance(answer, bytes)
                return answer
            finally:
                await self.committer.commit()
                await run_ready()  # who sleeps is asleep

    async def start(self, config: str, *users: pb.User, keep_alive: int = 0) -> pb.BaseInfoResponse:
        message = pb.Backend(config=config, users=users, keep_alive=keep_alive)
        return pb.BaseInfoResponse.FromString(await self.do(Kind.START, message.SerializeToString()))

    async def stop(self) -> None:
        await self.do(Kind.STOP)

    async def die(self, exit_code: int | None = 255) -> None:
        """Let the core end by itself."""
        assert self.core.running is not None
        running = self.core.running
        running.die(exit_code)
        await eventually(lambda: self.core.running is not running, "the death is noticed")
        await self.at_rest()

    async def at_rest(self) -> None:
        """Wait until nothing is under way."""
        await run_ready()
        async with self.node.core_lock:
            pass
        # What was begun behind the lock, a pause before the next try, say.
        await run_ready()

    async def pause(self, seconds: float) -> None:
        """Let time pass, and wait for what that leads to."""
        await self.clock.advance(seconds)
        await self.at_rest()

    # --- what is seen ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self.node.state

    @property
    def told(self) -> NodeStatus:
        """What workers were told last."""
        snapshot = self.snapshots.get(STATE)
        assert snapshot is not None
        return NodeStatus.decode(bytes(snapshot.body))

    @property
    def users_in_core(self) -> dict[str, set[str]]:
        """Tag -> e-mails of users that were altered in the running core."""
        assert self.core.api is not None
        return {tag: set(users) for tag, users in self.core.api.users.users.items()}

    def fail_call(self, method: str, *errors: CoreApiError | None) -> None:
        """Let the next calls of this method of the running core fail."""
        assert self.core.api is not None
        self.core.api.channel.errors[method] += errors


def config_of(*tags: str, **sections: Any) -> str:
    """A config with a VLESS inbound for each tag, on a free port."""
    return json.dumps({**make_config(make_inbound(tag, "vless") for tag in tags), **sections})


def with_inbound(config: str, tag: str) -> str:
    """The same config with one inbound more."""
    document = json.loads(config)
    document["inbounds"].append(make_inbound(tag, "vless"))
    return json.dumps(document)


def user(name: str, *tags: str) -> pb.User:
    """A user whose account follows from the name."""
    digits = "".join(f"{ord(letter):02x}" for letter in name).ljust(12, "0")[:12]
    proxies = pb.Proxy(vless=pb.Vless(id=f"00000000-0000-4000-8000-{digits}"))
    return pb.User(email=name, proxies=proxies, inbounds=tags)


def stored(config: str, *users: pb.User, core_run: int = 7) -> StoredState:
    """What an earlier supervisor stored."""
    message = pb.Backend(config=config).SerializeToString()
    rows = {one.email: one.SerializeToString() for one in users}
    return StoredState(backend=message, known=True, active=True, core_run=core_run, users=rows)


def left_behind(
    stage: Stage, config: str, core: str = "fake core", *, version: str = "", kept: bool = False, asked: str = ""
) -> FakeRunningCore:
    """A core that an earlier supervisor started with this config.

    ``version``: of the node, where that makes another base config. ``kept``: what it runs is kept beside it. ``asked``: The
    config that a panel had sent for it, where this version takes it for another one.
    """
    spec = RunSpec.read(pb.Backend(config=config), stage.settings)
    base = replace(spec.base, base_hash=f"{spec.base.base_hash}{version}")
    message = pb.Backend(config=asked).SerializeToString() if asked else spec.message
    stage.core.kept_beside = encode(RunSpec(message, base)) if kept else b""
    stage.core.left_behind = FakeRunningCore(900, base.base_hash, core)
    stage.core.left_behind_api = FakeCoreApi()
    stage.core.left_behind_api.channel.inbounds = {spec.tag for spec in base.inbounds}
    return stage.core.left_behind
