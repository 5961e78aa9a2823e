"""Calls about users to the running core: what its errors mean, and what becomes of users when it does not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.errors import CoreUnavailableError
from pgnode.store.changes import Journal
from pgnode.supervisor.users.core_users import CoreUsers
from pgnode.supervisor.users.planning import Change, InboundPlan
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import Account, accounts_of, user_message
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.proto import user_pb2
from tests.unit.supervisor.users.models import VLESS, vless_user

ACCOUNT = Account("vless", "00000000-0000-0000-0000-000000000001")


class FakeApi:
    """Users of one inbound by e-mail, with the core's errors."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.errors: dict[str, CoreApiError] = {}
        self.orders: list[list[tuple[str, bool]]] = []
        self.swap_error: CoreApiError | None = None
        self.listed: list[user_pb2.User] | CoreApiError = []
        self.away: dict[str, Any] = {}
        self.users = self
        self.inbounds = self
        self.swap = self

    async def alter_many(self, operations: Sequence[AlterOperation], _seconds: float) -> list[CoreApiError | None]:
        self.orders.append([(operation.email, operation.user is not None) for operation in operations])
        return [self._alter(operation) for operation in operations]

    def _alter(self, operation: AlterOperation) -> CoreApiError | None:
        if operation.email in self.errors:
            return self.errors[operation.email]
        if operation.user is None:
            if self.there.pop(operation.email, None) is None:
                return CoreApiError("not found", ErrorKind.NOT_FOUND)
        elif operation.email in self.there:
            return CoreApiError("exists", ErrorKind.ALREADY_EXISTS)
        else:
            self.there[operation.email] = operation.user
        return None

    async def bare_inbound(self, _tag: str, _seconds: float) -> None:
        raise CoreApiError("no such inbound", ErrorKind.REFUSED)

    async def replace_users(
        self, _tag: str, users: Sequence[bytes], _seconds: float, _before: Callable[[], Awaitable[Sequence[bytes]]]
    ) -> Sequence[bytes]:
        if self.swap_error is not None:
            raise self.swap_error
        return users[2:]

    async def inbound_users(self, _tag: str, _seconds: float) -> list[user_pb2.User]:
        if isinstance(self.listed, CoreApiError):
            raise self.listed
        return self.listed


class FakeController:
    def __init__(self) -> None:
        self.api: Any = FakeApi()
        self.running: Any = SimpleNamespace()
        self.ended = 0

    async def give_up_process(self) -> None:
        self.ended += 1


def stage() -> tuple[CoreUsers, FakeController, FakeApi]:
    controller = FakeController()
    return CoreUsers(cast(Any, controller), 1.0), controller, controller.api


def adding(*names: str) -> list[InboundPlan]:
    return [InboundPlan("vless", [Change(name, name, name, ACCOUNT) for name in names])]


async def nobody() -> Sequence[bytes]:
    return []


@pytest.mark.parametrize("chained", [False, True])
async def test_users_are_removed_and_added(chained: bool) -> None:
    users, _, api = stage()
    api.there["alice"] = b""
    outcome = await users.alter(adding("alice", "bob"), chained=chained)
    assert (outcome.refused, outcome.unanswered) == ({}, set())
    assert set(api.there) == {"alice", "bob"}
    removals, additions = [("alice", False), ("bob", False)], [("alice", True), ("bob", True)]
    assert api.orders == ([removals + additions] if chained else [removals, additions])


async def test_who_is_refused_and_who_is_not_answered_is_told_apart() -> None:
    users, _, api = stage()
    api.errors = {
        "bad": CoreApiError("no such cipher", ErrorKind.REFUSED),
        "slow": CoreApiError("deadline", ErrorKind.DEADLINE),
    }
    outcome = await users.alter(
        [InboundPlan("vless", [Change(name, None, name, ACCOUNT) for name in ("bad", "slow", "fine")])]
    )
    assert outcome.refused == {"bad": "no such cipher"}
    assert outcome.unanswered == {"slow"}
    assert outcome.error == "deadline"
    assert set(api.there) == {"fine"}


async def test_whoever_is_there_unexpectedly_is_replaced() -> None:
    users, _, api = stage()
    api.there["alice"] = b"somebody's"
    outcome = await users.alter([InboundPlan("vless", [Change("alice", None, "alice", ACCOUNT)])])
    assert outcome.refused == {}
    assert api.there["alice"] == user_message("alice", ACCOUNT)


async def test_without_a_core_nobody_is_answered() -> None:
    users, controller, _ = stage()
    there = [users.there]
    controller.api = None
    assert [*there, users.there] == [True, False]
    outcome = await users.alter(adding("alice"))
    assert (outcome.unanswered, outcome.error) == ({"alice"}, "the core has ended")
    with pytest.raises(CoreUnavailableError):
        await users.swap("vless", [], nobody)
    with pytest.raises(CoreUnavailableError):
        await users.compare(UserTable(Journal()), {"vless": VLESS})
    await users.prepare_swap("vless")


async def test_a_swap_says_how_many_did_not_fit() -> None:
    users, controller, api = stage()
    await users.prepare_swap("vless")
    assert await users.swap("vless", [b"1", b"2", b"3"], nobody) == 1
    api.swap_error = CoreApiError("refused", ErrorKind.REFUSED)
    assert await users.swap("vless", [], nobody) is None
    api.swap_error = SwapFailedError("refused", ErrorKind.REFUSED, restored=True)
    assert await users.swap("vless", [], nobody) is None
    assert controller.ended == 0


async def test_a_core_that_lost_an_inbound_is_ended() -> None:
    users, controller, api = stage()
    api.swap_error = SwapFailedError("refused", ErrorKind.REFUSED, restored=False)
    with pytest.raises(CoreUnavailableError, match="lost inbound 'vless'"):
        await users.swap("vless", [], nobody)
    assert controller.ended == 1


async def test_a_core_is_compared_and_strangers_are_removed() -> None:
    users, _, api = stage()
    table = UserTable(Journal())
    raws = {
        name: vless_user(name, number).SerializeToString() for number, name in enumerate(("fine", "other", "missing"))
    }
    table.restore(raws)

    def there(name: str, number: int) -> user_pb2.User:
        account = Account("vless", vless_user(name, number).proxies.vless.id)
        return user_pb2.User.FromString(user_message(name, account))

    api.listed = [there("fine", 0), there("other", 9), there("stranger", 8)]
    api.there = {"stranger": b""}
    assert await users.compare(table, {"vless": VLESS}) == {"fine"}
    assert api.there == {}
    api.listed = [there("FINE", 0)]
    api.errors = {"FINE": CoreApiError("deadline", ErrorKind.DEADLINE)}
    assert await users.compare(table, {"vless": VLESS}) == set()
    api.listed = CoreApiError("deadline", ErrorKind.DEADLINE)
    with pytest.raises(CoreUnavailableError, match="not known"):
        await users.compare(table, {"vless": VLESS})


async def test_whoever_is_listed_with_the_credential_of_a_stranger_is_put_again() -> None:
    users, _, api = stage()
    table = UserTable(Journal())
    table.restore({name: vless_user(name, number).SerializeToString() for number, name in enumerate(("alice", "bob"))})
    ids = {"alice": 0, "bob": 1, "stranger": 0}
    api.listed = [
        user_pb2.User.FromString(user_message(name, Account("vless", vless_user(name, number).proxies.vless.id)))
        for name, number in ids.items()
    ]
    api.there = {"stranger": b""}
    assert await users.compare(table, {"vless": VLESS}) == {"bob"}


async def test_whoever_shares_an_address_with_a_stranger_is_put_again() -> None:
    users, _, api = stage()
    inbound = InboundSpec(tag="wg0", protocol="wireguard", managed=True)
    table = UserTable(Journal())
    asked = {
        name: pb.User(
            email=name,
            inbounds=["wg0"],
            proxies=pb.Proxy(wireguard=pb.Wireguard(public_key=f"{name * 42}A", peer_ips=[f"10.0.0.{number}"])),
        )
        for name, number in {"a": 1, "b": 2, "s": 2}.items()
    }
    table.restore({name: asked[name].SerializeToString() for name in ("a", "b")})
    for name, user in asked.items():
        [account] = accounts_of(user, {"wg0": inbound}).values()
        cast(list[user_pb2.User], api.listed).append(user_pb2.User.FromString(user_message(name, account)))
    api.there = {"s": b""}
    assert await users.compare(table, {"wg0": inbound}) == {"a"}


async def test_nothing_is_done_for_an_inbound_that_is_away() -> None:
    users, _, api = stage()
    api.away["vless"] = None
    outcome = await users.alter([*adding("alice"), InboundPlan("other", [Change("bob", None, "bob", ACCOUNT)])])
    assert (outcome.refused, outcome.unanswered, set(api.there)) == ({}, set(), {"bob"})
    assert await users.swap("vless", [b"", b"", b""], nobody) is None
    await users.prepare_swap("vless")
    table = UserTable(Journal())
    table.restore({"alice": vless_user("alice", 0).SerializeToString()})
    api.listed = CoreApiError("handler not found", ErrorKind.NO_HANDLER)
    assert await users.compare(table, {"vless": VLESS}) == {"alice"}
