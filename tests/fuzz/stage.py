"""The nodes that are fuzzed, each with a real core, and what must not happen to them meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.processes import command_line, is_running, tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, HeldTransfer, TransferError, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.fuzz import configs, judge
from tests.fuzz.cases import KEY, Case, GrpcCase, HttpCase
from tests.fuzz.senders import BODY_SECONDS, HEADER_SECONDS, Outcome, Sender
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, worker_pids

#: Nothing leaves the machine: downloads are refused at once.
_NOWHERE = "http://127.0.0.1:1"
SETTINGS = {
    "HEADER_TIMEOUT_SECONDS": str(HEADER_SECONDS),
    "BODY_TIMEOUT_SECONDS": str(BODY_SECONDS),
    "STATS_UPDATE_INTERVAL_SECONDS": "0.5",
    # Inputs remove users, and so whoever holds a connection, which nothing else may end.
    "CUT_SESSIONS": "off",
    "CORE_CALL_TIMEOUT_SECONDS": "20",
    "WRITE_TIMEOUT_SECONDS": "60",
    "MAX_BODY_MIB": "4",
    "CORE_RELEASES_URL": _NOWHERE,
    "GEOFILES_IRAN_URL": _NOWHERE,
    "GEOFILES_CHINA_URL": _NOWHERE,
    "GEOFILES_RUSSIA_URL": _NOWHERE,
}

#: Memory that none of a node's processes may have, in MiB: each has some 100 of its own.
MEMORY_MIB_MAX = 600

_USERS = 10
_HELD = "held"
_MOVED_UP, _MOVED_DOWN = 40_000, 90_000


class FuzzedNode:
    """A node with a core, a user whose transfer is held, and one who moves exact amounts at the end."""

    def __init__(
        self, node: NodeProcess, panel: PanelClient, client: ClientCore, log_faults: list[str], config: dict[str, Any]
    ) -> None:
        self.node = node
        self._panel = panel
        self._client = client
        self._log_faults = log_faults
        self._config = config
        self._open = contextlib.AsyncExitStack()
        self._held: HeldTransfer | None = None
        self._core_pid = 0
        self._pids: dict[int, str] = {}
        self.sender = Sender(node)

    async def begin(self) -> None:
        """Start the core, hold a transfer, and note which processes there are."""
        await self.start_again()
        self._pids = {
            process.pid: command_line(process) for process in tree(self.node.pid) if process.pid != self._core_pid
        }

    async def end(self) -> None:
        """End the transfer."""
        await self._open.aclose()

    async def start_again(self) -> None:
        """Start the fuzzers' own config, whatever runs, and hold a transfer. PanelError."""
        await self._panel.start(self._config, [make_user("held@fuzz", ["VLESS"]), *make_users(_USERS, ["VLESS"])])
        self._core_pid = core_pid(self.node)
        if self._held is None or self._held.broken is not None:
            await self._open.aclose()
            self._held = await self._open.enter_async_context(self._client.hold(_HELD))

    def faults(self) -> list[str]:
        """Return what is wrong with the node now, without asking it anything; each log line is told once."""
        found = [f"in the log: {line}" for line in self._log_faults]
        self._log_faults.clear()
        if self.node.returncode is not None:
            found.append(f"the supervisor has ended with {self.node.returncode}")
        gone = [command for pid, command in self._pids.items() if not is_running(pid)]
        found += [f"a process has ended: {command}" for command in gone]
        self._pids = {pid: command for pid, command in self._pids.items() if command not in gone}
        if core_pid(self.node) != self._core_pid:
            found.append(f"the core {self._core_pid} has gone, now it is {core_pid(self.node)}")
            self._core_pid = core_pid(self.node)
        if self._held is not None and self._held.broken is not None:
            found.append(f"the held transfer {self._held.broken}")
            self._held = None
        return found

    def memory_faults(self) -> list[str]:
        """Return processes that have grown beyond all measure."""
        found = []
        for process in tree(self.node.pid):
            with contextlib.suppress(Exception):  # it may just have ended
                mib = process.memory_info().rss >> 20
                if mib > MEMORY_MIB_MAX:
                    found.append(f"{mib} MiB: {command_line(process)[:100]}")
        return found

    async def still_moves(self) -> list[str]:
        """Wait until the held transfer has gone on."""
        try:
            if self._held is not None:
                await self._held.wait_rounds(1, 60.0)
        except (TransferError, TimeoutError) as error:
            return [f"the held transfer does not go on: {error!r}"]
        return []

    async def settle(self, case: Case, outcome: Outcome) -> list[str]:
        """Bring a node on which cores may be replaced back to the fuzzers' config where a start or stop was taken."""
        if not isinstance(case, HttpCase) or case.route is None or not case.second:
            return []
        with contextlib.suppress(judge.Malformed):
            if all(answer.status != 200 for answer in judge.answers(outcome.data)):
                return await self.still_moves()
        # Whoever was connected to an inbound that the taken config has no more is not to be held against it.
        self._held = None
        try:
            await self.start_again()
        except Exception as error:  # told with the input
            return [f"the usual config does not start after it: {error!r}"]
        return []

    async def exact_round(self) -> list[str]:
        """A start, a full set, traffic, statistics: all exactly as they should be. Returns what is not."""
        try:
            await self._exact_round()
        except Exception as error:  # whatever it is, it is what was looked for
            return [f"the node is not well at the end: {type(error).__name__}: {error}"]
        return []

    async def _exact_round(self) -> None:
        core = core_pid(self.node)
        users = [
            make_user("mover@fuzz", ["VLESS"]),
            make_user("held@fuzz", ["VLESS"]),
            *make_users(_USERS, ["VLESS", "Trojan"]),
        ]
        await self._panel.start(self._config, users[:5])
        rule = '{"inboundTag": ["nobody"], "outboundTag": "DIRECT", "ruleTag": "only"}'
        request = pb.AddRoutingRuleRequest(rule=rule, should_reset=True)
        await self._panel.call("PUT", "/routing/rules", request, pb.Empty)
        await self._panel.sync_users(users)
        for tag in ("VLESS", "Trojan"):
            wanted = {user.email for user in users if tag in user.inbounds}
            found = set(await inbound_users(self.node.run_dir / "core.sock", tag))
            assert found == wanted, f"{tag} has {sorted(found ^ wanted)[:5]} too much or too little"
        before = await self._panel.traffic("mover@fuzz")
        await self._client.move("mover", _MOVED_UP, _MOVED_DOWN)
        moved = (0, 0)

        async def counted() -> bool:
            nonlocal moved
            now = await self._panel.traffic("mover@fuzz")
            moved = (now.uplink_bytes - before.uplink_bytes, now.downlink_bytes - before.downlink_bytes)
            return moved == (_MOVED_UP, _MOVED_DOWN)

        await eventually(counted, "all that moved is counted, and no more")
        await self._panel.backend_stats()
        assert core_pid(self.node) == core, "the usual start has made another core"


@contextlib.asynccontextmanager
async def fuzzed_node(
    on_line: Callable[[str], object] = str, *, first_port: int = configs.FIRST_PORT, **env: str
) -> AsyncIterator[FuzzedNode]:
    """A node with its core and its held transfer. Lines that tell of a fault are kept."""
    log_faults: list[str] = []

    def look(line: str) -> None:
        on_line(line)
        if fault := judge.fault_of_log(line):
            log_faults.append(fault)

    config = configs.base_config(first_port)
    inbound = config["inbounds"][0]
    links = [
        link(inbound, make_user("held@fuzz", ["VLESS"]), name=_HELD),
        link(inbound, make_user("mover@fuzz", ["VLESS"]), name="mover"),
    ]
    async with (
        NodeProcess(env={**SETTINGS, **env}, api_key=KEY, on_line=look) as node,
        node.panel(timeout_seconds=60) as panel,
        Target() as target,
        ClientCore(links, target) as client,
    ):
        fuzzed = FuzzedNode(node, panel, client, log_faults, config)
        try:
            await fuzzed.begin()
            yield fuzzed
        finally:
            await fuzzed.end()


def faults_of(case: Case, outcome: Outcome) -> list[str]:
    """Return what is wrong with what came of an input, as far as it says itself."""
    if not outcome.ended:
        return [f"no answer within {outcome.seconds:.1f} s"]
    if case.ending == "cuts":
        return []
    if isinstance(case, GrpcCase):
        answers = judge.rpc_answers(outcome.data)
        if case.method is not None and not answers:
            return [f"the call has no status: {outcome.data[:200]!r}"]
        # A caller may give a call less time than anybody needs.
        hurried = any(b"grpc-timeout" in part for part in case.parts)
        judged = [
            answer for answer in answers if not (hurried and answer.status == judge.STATUSES.index("DEADLINE_EXCEEDED"))
        ]
        return [fault for answer in judged if (fault := judge.fault_of_rpc(case.method, answer))]
    try:
        found = judge.answers(outcome.data)
    except judge.Malformed as error:
        return [str(error)]
    # Whoever goes on sending after an error may find the connection reset, and the answer gone with it.
    if not found and (case.route is not None or (len(case.parts) == 1 and b"\r\n\r\n" in case.parts[0])):
        return ["the connection was closed without an answer"]
    return [fault for answer in found if (fault := judge.fault_of_http(case.route, answer))]


def is_alive(node: FuzzedNode) -> bool:
    """Whether it makes sense to go on."""
    return node.node.returncode is None and bool(worker_pids(node.node))
