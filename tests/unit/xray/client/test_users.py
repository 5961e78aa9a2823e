"""Users of an inbound: added, removed, listed, one by one and many at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.proto import handler_command_pb2, user_pb2
from tests.unit.xray.client.builders import DEADLINE_SECONDS, make_inbound, make_user
from tests.unit.xray.fake_core import FakeCore


@given(tag=st.text(max_size=200), email=st.text(max_size=300), padding=st.integers(0, 20_000))
def test_requests_by_hand_are_those_of_the_library(tag: str, email: str, padding: int) -> None:
    user = make_user(email, padding)
    added = handler_command_pb2.AlterInboundRequest.FromString(AlterOperation.add(tag, user).request())
    assert added.tag == tag
    assert added.operation.type == handler_command_pb2.AddUserOperation.DESCRIPTOR.full_name
    operation = handler_command_pb2.AddUserOperation.FromString(added.operation.value)
    assert operation.user == user_pb2.User.FromString(user)
    removed = handler_command_pb2.AlterInboundRequest.FromString(AlterOperation.remove(tag, email).request())
    assert removed.operation.type == handler_command_pb2.RemoveUserOperation.DESCRIPTOR.full_name
    assert handler_command_pb2.RemoveUserOperation.FromString(removed.operation.value).email == email


async def test_one_user(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in"))
    await api.users.add_user("in", make_user("alice"), DEADLINE_SECONDS)
    assert [user.email for user in await api.users.inbound_users("in", DEADLINE_SECONDS)] == ["alice"]
    assert await api.users.inbound_user_count("in", DEADLINE_SECONDS) == 1
    with pytest.raises(CoreApiError) as caught:
        await api.users.add_user("in", make_user("alice"), DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    await api.users.remove_user("in", "alice", DEADLINE_SECONDS)
    with pytest.raises(CoreApiError) as caught:
        await api.users.remove_user("in", "alice", DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    with pytest.raises(CoreApiError) as caught:
        await api.users.inbound_users("none", DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.NO_HANDLER
    assert "UsersClient" in repr(api.users)


async def test_many_at_a_time_and_each_has_its_own_result(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", users=[make_user("there")]))
    names = [f"user{number}" for number in range(300)]
    operations = [AlterOperation.add("in", make_user(name)) for name in [*names, "there"]]
    results = await api.users.alter_many(operations, DEADLINE_SECONDS)
    assert results[:-1] == [None] * 300
    assert results[-1] is not None
    assert results[-1].kind is ErrorKind.ALREADY_EXISTS
    assert await api.users.alter_many([AlterOperation.remove("in", name) for name in names], DEADLINE_SECONDS) == (
        [None] * 300
    )
    assert set(fake.users["in"]) == {"there"}
    assert await api.users.alter_many([], DEADLINE_SECONDS) == []


async def test_operations_on_one_user_keep_their_order(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in"))
    fake.add(make_inbound("other"))
    add, remove = AlterOperation("in", "a", make_user("a")), AlterOperation.remove("in", "A")
    elsewhere = AlterOperation("other", "a", make_user("a"))
    results = await api.users.alter_many([add, remove, elsewhere, add, remove, add], DEADLINE_SECONDS)
    assert results == [None] * 6
    assert set(fake.users["in"]) == set(fake.users["other"]) == {"a"}
