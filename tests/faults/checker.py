"""What callers were answered, held against what the core and the store have afterwards.

Every change of users goes through a :class:`Record`. A call that was answered with success holds, unless another one that could
have come after it changed the same user; of a call without an answer nobody knows whether it was done. So each user has a
set of states that are allowed at the end, and core and store must both have the same one of them. Pure but for the reading.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from pgnode.bus.connection import BUS_ERRORS
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.wire import service_pb2 as pb
from pgnode.xray.proto import handler_command_pb2, trojan_pb2, vless_pb2
from tests.faults.trial import Trial
from tests.support.polling import eventually
from tests.support.stored import StoredUsers, stored_users

#: Generous: a node with other things to do on the machine brings a core with 10,000 users back within a few seconds.
SETTLED_SECONDS = 90.0

#: A user's state: its message, None for "not there".
State = bytes | None


def state_of(user: pb.User) -> State:
    return user.SerializeToString(deterministic=True) if user.inbounds else None


@dataclass(frozen=True, slots=True)
class Call:
    """One change: what it wanted of which users, when it was under way, and whether its success was answered."""

    wanted: Mapping[str, State]
    begun: float
    ended: float
    done: bool


@dataclass
class Record:
    """The calls on one node. E-mails here are in lower case as they are."""

    panel: PanelClient
    initial: dict[str, State] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    #: Errors other than "not now" and "no answer", which no fault excuses.
    unexpected: list[str] = field(default_factory=list)
    #: Users who are in every full set: their connections are held, and end with their accounts.
    kept: list[pb.User] = field(default_factory=list)

    async def _called(self, wanted: Mapping[str, State], work: Awaitable[object], refused: Iterable[str] = ()) -> bool:
        begun, done = time.monotonic(), False
        try:
            await work
            done = True
        except PanelError as error:
            done = error.status == 500 and error.code == "USER_REJECTED" and bool(refused)
            if not done and error.status not in (503, 504):
                self.unexpected.append(str(error))
        except (NoAnswerError, OSError):
            pass
        self.calls.append(Call(wanted, begun, time.monotonic(), done))
        return done

    async def one(self, user: pb.User) -> bool:
        """One user is added, changed or, without inbounds, removed."""
        return await self._called({user.email: state_of(user)}, self.panel.sync_user(user))

    async def several(self, users: Sequence[pb.User], refused: Iterable[str] = ()) -> bool:
        """A delta. Those ``refused`` are expected to be turned down by name, and to stay as they were."""
        bad = set(refused)
        wanted = {user.email: state_of(user) for user in users if user.email not in bad}
        return await self._called(wanted, self.panel.sync_chunked(users), bad)

    async def all(self, users: Sequence[pb.User]) -> bool:
        """The set becomes this: whoever was ever named and is not in it is wanted away."""
        users = self._with_kept(users)
        return await self._called(self._full(users), self.panel.sync_users(users))

    async def start(self, config: Mapping[str, object], users: Sequence[pb.User]) -> bool:
        """A start; its users are a full set."""
        users = self._with_kept(users)
        return await self._called(self._full(users), self.panel.start(dict(config), users))

    def _with_kept(self, users: Sequence[pb.User]) -> list[pb.User]:
        named = {user.email for user in users}
        return [*users, *(user for user in self.kept if user.email not in named)]

    def _full(self, users: Sequence[pb.User]) -> Mapping[str, State]:
        return _FullSet({user.email: state_of(user) for user in users})

    def emails(self) -> set[str]:
        found = set(self.initial)
        for call in self.calls:
            found.update(call.wanted)
        return found

    def answered(self) -> int:
        """Users whose change was answered with success, a change each; those of the start at the beginning, too."""
        return len(self.initial) + sum(len(call.wanted) for call in self.calls if call.done)

    def allowed(self) -> dict[str, set[State]]:
        """E-mail -> states that it may have now."""
        by_email: dict[str, list[tuple[State, float, float, bool]]] = {
            email: [(self.initial.get(email), -math.inf, -math.inf, True)] for email in self.emails()
        }
        for call in self.calls:
            for email in by_email if isinstance(call.wanted, _FullSet) else call.wanted:
                by_email[email].append((call.wanted.get(email), call.begun, call.ended, call.done))
        allowed = {}
        for email, changes in by_email.items():
            # Whatever had ended before the last successful one began cannot have come after it.
            last_begun = max(begun for _, begun, _, done in changes if done)
            allowed[email] = {state for state, _, ended, _ in changes if ended >= last_begun}
        return allowed


class _FullSet(dict[str, State]):
    """What is not in it is wanted away."""


async def in_core(node: NodeProcess, tags: Sequence[str]) -> dict[str, dict[str, str]]:
    """Tag -> e-mail -> secret, as the core lists them."""
    found: dict[str, dict[str, str]] = {}
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{node.run_dir / 'core.sock'}", options=options) as channel:
        call = channel.unary_unary(
            "/xray.app.proxyman.command.HandlerService/GetInboundUsers",
            request_serializer=handler_command_pb2.GetInboundUserRequest.SerializeToString,
            response_deserializer=handler_command_pb2.GetInboundUserResponse.FromString,
        )
        for tag in tags:
            users = (await call(handler_command_pb2.GetInboundUserRequest(tag=tag), timeout=30)).users
            found[tag] = {user.email: _secret(user.account.type, user.account.value) for user in users}
            assert len(found[tag]) == len(users), f"a user is in {tag} twice"
    return found


def _secret(kind: str, account: bytes) -> str:
    if kind.endswith("vless.Account"):
        return str(vless_pb2.Account.FromString(account).id)
    return str(trojan_pb2.Account.FromString(account).password)


async def in_store(node: NodeProcess) -> StoredUsers:
    """What the node's own store has."""
    return await asyncio.to_thread(stored_users, node)


async def differences(node: NodeProcess, record: Record, tags: Sequence[str]) -> list[str]:
    """What core and store have that they should not, or the other way round; empty when all is well."""
    stored = await in_store(node)
    core = await in_core(node, tags)
    allowed = record.allowed()
    faults = [f"unexpected error: {text}" for text in record.unexpected]
    for email in stored.desired.keys() - allowed.keys():
        faults.append(f"{email} is in the store, and nobody asked for it")
    for email, states in allowed.items():
        user = stored.desired.get(email)
        if (state_of(user) if user is not None else None) not in states:
            faults.append(f"{email} in the store is none of the {len(states)} states that it may have")
    for tag in tags:
        wanted = {
            user.email: user.proxies.vless.id if tag.startswith("VLESS") else user.proxies.trojan.password
            for user in stored.desired.values()
            if tag in user.inbounds
        }
        if core[tag] != wanted:
            odd = sorted(set(core[tag].items()) ^ set(wanted.items()))
            faults.append(f"{tag}: core and store differ in {len(odd)} entries, first {odd[0]}")
    return faults


async def check(node: NodeProcess, record: Record, tags: Sequence[str], trial: Trial) -> None:
    """The node comes to rest in a state that fits all that was answered. AssertionError with what does not fit.

    The trial gets the number of faults, and that of the changes that were answered.
    """
    faults: list[str] = []

    async def fits() -> bool:
        faults[:] = ["the node does not answer"]
        await record.panel.backend_stats()
        faults[:] = await differences(node, record, tags)
        return not faults

    try:
        await eventually(
            fits,
            "core, store and answers agree",
            SETTLED_SECONDS,
            errors=(PanelError, NoAnswerError, grpc.aio.AioRpcError, *BUS_ERRORS),
        )
    except AssertionError:
        raise AssertionError(f"{len(faults)} faults:\n" + "\n".join(faults[:10])) from None
    finally:
        trial.changes(len(faults), record.answered())
