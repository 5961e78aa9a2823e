"""The users of an inbound exchanged at once, and the way back when the core refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.client.swap import InboundSwap
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.protocols import SINGLE_USER_SETTINGS
from pgnode.xray.proto import core_pb2
from tests.support.polling import eventually
from tests.unit.xray.client.builders import DEADLINE_SECONDS, make_inbound, make_user
from tests.unit.xray.fake_core import FakeCore, Refusal

ADD = "/xray.app.proxyman.command.HandlerService/AddInbound"
REMOVE = "/xray.app.proxyman.command.HandlerService/RemoveInbound"
BEFORE, AFTER = [make_user("before")], [make_user("alice"), make_user("bob")]
TWICE = [make_user("alice"), make_user("alice")]


async def test_exactly_these_users(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", users=BEFORE))
    assert not await api.swap.replace_users("in", AFTER, DEADLINE_SECONDS)
    assert set(fake.users["in"]) == {"alice", "bob"}
    assert "0 under way" in repr(api.swap)


async def test_what_does_not_fit_is_returned(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", users=BEFORE))
    users = [make_user(f"user{number}") for number in range(50)]
    swap = InboundSwap(api.inbounds, api.users, limit_bytes=1000)
    rest = await swap.replace_users("in", users, DEADLINE_SECONDS)
    assert 0 < len(rest) < 50
    assert len(fake.users["in"]) == 50 - len(rest)
    assert not any(await api.users.alter_many([AlterOperation.add("in", user) for user in rest], DEADLINE_SECONDS))
    # And the way back, with more users than one message takes.
    with pytest.raises(SwapFailedError) as caught:
        await swap.replace_users("in", TWICE, DEADLINE_SECONDS)
    assert caught.value.restored
    assert len(fake.users["in"]) == 50


@pytest.mark.parametrize("told", [False, True])
async def test_a_refused_list_brings_the_old_one_back(fake: FakeCore, api: CoreApi, told: bool) -> None:
    fake.add(make_inbound("in", users=BEFORE))

    async def before() -> Sequence[bytes]:
        return BEFORE

    with pytest.raises(SwapFailedError, match="the old one is back") as caught:
        await api.swap.replace_users("in", TWICE, DEADLINE_SECONDS, before if told else None)
    assert caught.value.restored
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    assert set(fake.users["in"]) == {"before"}
    assert ("GetInboundUsers" in fake.calls) is not told, "who is told does not ask"


async def test_an_inbound_that_had_nobody(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in"))
    with pytest.raises(SwapFailedError):
        await api.swap.replace_users("in", TWICE, DEADLINE_SECONDS)
    assert fake.users["in"] == {}


async def test_an_inbound_that_cannot_be_put_back(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", users=BEFORE))

    def refuse(_request: bytes) -> bytes:
        raise Refusal("listen: address already in use")

    fake.answers[ADD] = refuse
    with pytest.raises(SwapFailedError, match="could not be put back") as caught:
        await api.swap.replace_users("in", AFTER, DEADLINE_SECONDS)
    assert not caught.value.restored


async def test_hysteria_is_refused_untouched(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", "hysteria"))
    with pytest.raises(CoreApiError, match="alter its users instead") as caught:
        await api.swap.replace_users("in", AFTER, DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.REFUSED
    assert "RemoveInbound" not in fake.calls


async def test_a_single_user_is_not_asked_for(fake: FakeCore, api: CoreApi) -> None:
    inbound = core_pb2.InboundHandlerConfig(tag="in")
    inbound.receiver_settings.type = "xray.app.proxyman.ReceiverConfig"
    inbound.proxy_settings.type = SINGLE_USER_SETTINGS
    fake.add(inbound)
    await api.swap.replace_users("in", AFTER, DEADLINE_SECONDS)
    assert set(fake.users["in"]) == {"alice", "bob"}
    assert "GetInboundUsers" not in fake.calls


async def test_a_caller_that_gives_up_leaves_the_inbound_in_place(fake: FakeCore, api: CoreApi) -> None:
    fake.add(make_inbound("in", users=BEFORE))

    def remove_and_fall_asleep(_request: bytes) -> bytes:
        del fake.inbounds["in"], fake.users["in"]
        fake.awake.clear()
        return b""

    fake.answers[REMOVE] = remove_and_fall_asleep
    swap = asyncio.create_task(api.swap.replace_users("in", AFTER, DEADLINE_SECONDS))
    await eventually(lambda: fake.calls[-1:] == ["AddInbound"], "the inbound is out, and on its way in")
    swap.cancel()
    with pytest.raises(asyncio.CancelledError):
        await swap
    fake.awake.set()
    await eventually(lambda: "in" in fake.inbounds, "the inbound is in again")
    assert set(fake.users["in"]) == {"alice", "bob"}
