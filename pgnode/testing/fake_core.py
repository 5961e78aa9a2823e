"""A core that is no process: it answers as one does, dies when told to, and fails where a test wants it to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import Message

from pgnode.errors import NodeError, StartFailedError
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.read_files import ReadFiles
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.channel import CoreChannel
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.inbounds import InboundsClient
from pgnode.xray.client.stats import StatsClient
from pgnode.xray.client.swap import InboundSwap
from pgnode.xray.client.users import AlterOperation, UsersClient
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.log_section import LogSection
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.record import CoreRecord
from pgnode.xray.process.running import RunningCore
from pgnode.xray.proto import core_pb2, router_pb2, routing_command_pb2, typed_message_pb2, user_pb2, vless_inbound_pb2
from pgnode.xray.proto import handler_command_pb2 as pb
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse

SILENT = CoreApiError("Deadline Exceeded", ErrorKind.DEADLINE)


class FakeChannel(CoreChannel):
    """A core's API in memory: inbounds, outbounds, rules and balancers. A call takes the next error of its method, if any."""

    def __init__(self, base: BaseConfig | None = None) -> None:
        super().__init__("/nowhere.sock")
        self.inbounds = {spec.tag for spec in base.inbounds} if base is not None else set()
        self.outbounds: set[str] = set()
        #: Inbounds that were added, as they were.
        self.added: list[core_pb2.InboundHandlerConfig] = []
        self.rules = rules_of(base) if base is not None else []
        self.overrides: dict[str, str] = {}
        #: Method -> what the next calls of it fail with, in order; None for one that does not.
        self.errors: defaultdict[str, list[CoreApiError | None]] = defaultdict(list)
        #: Every method that was called.
        self.calls: list[str] = []

    async def aclose(self) -> None:
        """Do nothing."""

    async def call(self, path: str, request: bytes, deadline_seconds: float, *, wait_for_ready: bool = False) -> bytes:
        """Answer as a core would, at once."""
        method = path.rpartition("/")[2]
        self.calls.append(method)
        await asyncio.sleep(0)
        errors = self.errors[method]
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error
        answer = self._answer(method, request)
        return answer.SerializeToString() if answer is not None else b""

    def _answer(self, method: str, request: bytes) -> Message | None:
        match method:
            case "ListInbounds":
                return pb.ListInboundsResponse(inbounds=map(_listed, sorted(self.inbounds)))
            case "AddInbound":
                self.added.append(pb.AddInboundRequest.FromString(request).inbound)
                self.inbounds.add(self.added[-1].tag)
            case "RemoveInbound":
                _remove(self.inbounds, pb.RemoveInboundRequest.FromString(request).tag)
            case "AddOutbound":
                self.outbounds.add(pb.AddOutboundRequest.FromString(request).outbound.tag)
            case "RemoveOutbound":
                _remove(self.outbounds, pb.RemoveOutboundRequest.FromString(request).tag)
            case "ListRule":
                rules = [routing_command_pb2.ListRuleItem(tag=out, ruleTag=tag) for out, tag in self.rules]
                return routing_command_pb2.ListRuleResponse(rules=rules)
            case "AddRule":
                asked = routing_command_pb2.AddRuleRequest.FromString(request)
                added = [(rule.tag, rule.rule_tag) for rule in router_pb2.Config.FromString(asked.config.value).rule]
                self.rules = [*self.rules, *added] if asked.shouldAppend else added
            case "OverrideBalancerTarget":
                override = routing_command_pb2.OverrideBalancerTargetRequest.FromString(request)
                self.overrides[override.balancerTag] = override.target
            case "GetSysStats":
                return SysStatsResponse(Uptime=1)
        return None


def _listed(tag: str) -> core_pb2.InboundHandlerConfig:
    """Make an inbound as a core lists it: VLESS, without users."""
    vless = typed_message_pb2.TypedMessage(type=vless_inbound_pb2.Config.DESCRIPTOR.full_name)
    receiver = typed_message_pb2.TypedMessage(type="receiver")
    return core_pb2.InboundHandlerConfig(tag=tag, receiver_settings=receiver, proxy_settings=vless)


def users_of(inbound: core_pb2.InboundHandlerConfig) -> set[str]:
    """Return the e-mails of the users that a VLESS inbound was added with."""
    return {user.email for user in vless_inbound_pb2.Config.FromString(inbound.proxy_settings.value).users}


def _remove(tags: set[str], tag: str) -> None:
    if tag not in tags:
        raise CoreApiError(f"handler not found: {tag}", ErrorKind.NO_HANDLER)
    tags.remove(tag)


def rules_of(base: BaseConfig) -> list[tuple[str, str]]:
    """Return (outbound, ruleTag) of each rule of a config, as a core lists them."""
    rules = base.document["routing"].get("rules") or []
    return [(rule.get("outboundTag") or "", rule.get("ruleTag") or "") for rule in rules]


class FakeUsers(UsersClient):
    """The users in the core, by inbound and e-mail."""

    def __init__(self, channel: CoreChannel) -> None:
        super().__init__(channel)
        self.users: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        #: E-mail -> what an addition of that user fails with.
        self.errors: dict[str, CoreApiError] = {}
        #: How many changes were made.
        self.changes = 0

    async def aclose(self) -> None:
        """Do nothing."""

    async def alter_many(
        self, operations: Sequence[AlterOperation], deadline_seconds: float
    ) -> list[CoreApiError | None]:
        """Carry them out."""
        await asyncio.sleep(0)
        return [self._carry_out(*operation) for operation in operations]

    def _carry_out(self, tag: str, email: str, user: bytes | None) -> CoreApiError | None:
        self.changes += 1
        of_inbound = self.users[tag]
        if email in self.errors and user is not None:
            return self.errors[email]
        if user is not None:
            of_inbound[email] = user
        elif of_inbound.pop(email, None) is None:
            return CoreApiError(f"User {email} not found.", ErrorKind.NOT_FOUND)
        return None

    async def inbound_users(self, tag: str, deadline_seconds: float) -> list[user_pb2.User]:
        """List them."""
        await asyncio.sleep(0)
        return [user_pb2.User.FromString(user) for user in self.users[tag].values()]


class FakeCoreApi(CoreApi):
    """The API of a fake core."""

    def __init__(self, base: BaseConfig | None = None) -> None:
        self.channel: FakeChannel = FakeChannel(base)
        self.stats = StatsClient(self.channel)
        self.users: FakeUsers = FakeUsers(self.channel)
        self.inbounds = InboundsClient(self.channel)
        self.swap = InboundSwap(self.inbounds, self.users)


class FakeRunningCore(RunningCore):
    """A process that ends when told to."""

    def __init__(self, pid: int, config_hash: str, core: str = "fake core") -> None:
        self.record = CoreRecord(pid, pid, "boot", config_hash, "fake", core)
        self.run_dir = Path("/no/core")
        self._exit: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<FakeRunningCore pid={self.pid}>"

    def die(self, exit_code: int | None = 255) -> None:
        """End by itself."""
        if not self._exit.done():
            self._exit.set_result(exit_code)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._exit.done()

    async def wait(self) -> int | None:
        """Wait for its end."""
        return await asyncio.shield(self._exit)

    async def set_config_hash(self, config_hash: str) -> None:
        """Note it in the record."""
        self.record = replace(self.record, config_hash=config_hash)


class FakeController(CoreController):
    """Starts fake cores. Never two at a time: that is an error of the test's subject.

    Args:
        core: What the next start runs; nothing asks it for anything, unless a test does.
    """

    def __init__(self, core: Core | None = None) -> None:
        self._core = core if core is not None else EmbeddedCore()
        self._running: FakeRunningCore | None = None
        self._api: FakeCoreApi | None = None
        self._initial_stats = SysStatsResponse(Uptime=1)
        self._known_version = "26.10.10"
        self._log_section = LogSection()
        self.waiting_log = ""
        self.files = ReadFiles(Path("/proc/none"), None)
        #: What the next starts fail with, in order; None for one that comes up.
        self.start_errors: list[NodeError | None] = []
        #: What the next checks fail with, in order.
        self.check_errors: list[NodeError | None] = []
        #: Cleared by a test, checks wait until it is set again.
        self.let_check = asyncio.Event()
        self.let_check.set()
        #: What the next stop fails with.
        self.stop_error: Exception | None = None
        #: A core of an earlier supervisor.
        self.left_behind: FakeRunningCore | None = None
        #: What is kept beside the core.
        self.kept_beside = b""
        #: Its API, where it is not an empty one.
        self.left_behind_api: FakeCoreApi | None = None
        self.version_text = "26.10.10"
        #: What was done, by name.
        self.done: list[str] = []
        #: Configs of the cores that were started, as JSON.
        self.configs: list[str] = []
        self._pids = iter(range(1000, 100_000))

    def __repr__(self) -> str:
        return f"FakeController({self._running!r})"

    @property
    def running(self) -> FakeRunningCore | None:
        """The fake process that runs."""
        return self._running

    @property
    def api(self) -> FakeCoreApi | None:
        """Its API."""
        return self._api

    def matches(self, running: RunningCore) -> bool:
        """Whether it is one of ours."""
        return running.record.core == "fake core"

    async def version(self) -> str:
        """Return a version. Raises StartFailedError where that is empty."""
        if not self.version_text:
            raise StartFailedError("the core cannot be run")
        self._known_version = self.version_text
        return self.version_text

    async def check(self, base: BaseConfig, other: Core | None = None) -> None:
        """Accept or refuse a config as the test wants it."""
        self.done.append("check")
        await self.let_check.wait()
        error = self.check_errors.pop(0) if self.check_errors else None
        if error is not None:
            raise error

    def warm_up(self) -> None:
        """Note it."""
        self.done.append("warm up")

    async def discard_runner(self) -> None:
        """Note it."""
        self.done.append("discard runner")

    async def start(self, base: BaseConfig, make_config: Callable[[], Awaitable[str]]) -> FakeRunningCore:
        """Start a fake core, or fail as the test wants it."""
        assert self._running is None, "two cores"
        self.done.append("start")
        config = await make_config()
        error = self.start_errors.pop(0) if self.start_errors else None
        if error is not None:
            raise error
        self.configs.append(config)
        return self.come_up(base)

    def come_up(self, base: BaseConfig) -> FakeRunningCore:
        """Have a core with this config."""
        self._running = FakeRunningCore(next(self._pids), base.base_hash)
        self._log_section = LogSection.of(base.document.get("log"))
        self.waiting_log = ""
        self._api = FakeCoreApi(base)
        return self._running

    async def adopt(self) -> FakeRunningCore | None:
        """Take over what was left behind."""
        self.done.append("adopt")
        if self.left_behind is not None:
            self._running, self._api = self.left_behind, self.left_behind_api or FakeCoreApi()
        return self.left_behind

    async def stop(self) -> None:
        """End the fake core."""
        if self._running is not None:
            self.done.append("stop")
            self._running.die(0)
        self._running = self._api = None
        error, self.stop_error = self.stop_error, None
        if error is not None:
            raise error

    async def keep(self, encode: Callable[[], bytes]) -> None:
        """Keep it."""
        self.kept_beside = encode()

    async def kept(self) -> bytes:
        """Return it."""
        return self.kept_beside

    async def kill(self) -> None:
        """Kill the fake core."""
        self.done.append("kill")
        if self._running is not None:
            self._running.die(-9)

    def follow_logs(self, base: BaseConfig) -> None:
        """Note it."""
        self.done.append("follow logs")
        self.waiting_log = self.log_waits(base)

    async def follow(self, base: BaseConfig, make_config: Callable[[], Awaitable[str]]) -> None:
        """Note it, with the config."""
        self.done.append("follow")
        self.configs.append(await make_config())
