"""Streams of users and of chunks, without a transport."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable

import pytest

from pgnode.api.service import deadline, streams
from pgnode.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NodeError,
    NotInitializedError,
    TooLargeError,
    UsersRefusedError,
)
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually, next_turn

MIB = 1024 * 1024


def user(email: str, size: int = 0) -> bytes:
    return pb.User(email=email, inbounds=["x" * size]).SerializeToString()


async def given(bodies: Iterable[bytes], error: NodeError | None = None) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body
    if error is not None:
        raise error


class Node:
    """Takes users; ``answers`` are the errors for some e-mails. ``open`` holds up everybody until it is set."""

    def __init__(self, answers: dict[str, Exception] | None = None) -> None:
        self.answers = answers or {}
        self.taken: list[str] = []
        self.done: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def sync(self, body: bytes) -> bytes:
        email = pb.User.FromString(body).email
        self.taken.append(email)
        await self.open.wait()
        if email in self.answers:
            raise self.answers[email]
        self.done.append(email)
        return b""


async def apply(node: Node, messages: AsyncIterator[bytes], alone_bytes: int = MIB) -> None:
    assert await streams.apply_users(messages, node.sync, alone_bytes=alone_bytes) == b""


async def test_users_are_begun_in_their_order_and_no_more_than_allowed_at_once() -> None:
    node = Node()
    node.open.clear()
    emails = [f"u{number}" for number in range(3 * streams.IN_FLIGHT)]
    applying = asyncio.create_task(apply(node, given(user(email) for email in emails)))
    await eventually(lambda: len(node.taken) == streams.IN_FLIGHT, "as many as may be under way are")
    node.open.set()
    await applying
    assert node.taken == emails


async def test_refused_users_hold_up_nobody_and_are_named_at_the_end() -> None:
    node = Node(
        {
            "bad": UsersRefusedError("failed to update users: bad: no such flow"),
            "worse": InvalidRequestError("vless id is not a UUID"),
        }
    )
    with pytest.raises(UsersRefusedError) as caught:
        await apply(node, given([user("a"), user("bad"), user("b"), user("worse"), user("c")]))
    assert str(caught.value) == (
        "failed to update users: bad: no such flow; worse: vless id is not a UUID (3 of 5 users applied)"
    )
    assert node.done == ["a", "b", "c"]


async def test_a_text_names_a_bounded_number_of_refused_users() -> None:
    emails = [f"u{number}" for number in range(100)]
    node = Node({email: UsersRefusedError(f"failed to update users: {email}: no") for email in emails})
    with pytest.raises(UsersRefusedError, match=r"u19: no; and 80 more \(0 of 100 users applied\)"):
        await apply(node, given(map(user, emails)))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotInitializedError(), "backend not initialized (at user 3 of the stream, 'c') (2 of 3 users applied)"),
        (
            ZeroDivisionError(),
            "internal error (ZeroDivisionError): see the node's log (at user 3 of the stream, 'c') "
            "(2 of 3 users applied)",
        ),
    ],
)
async def test_any_other_error_ends_the_stream_and_says_how_far_it_got(error: Exception, text: str) -> None:
    node = Node({"c": error})

    async def slowly() -> AsyncIterator[bytes]:
        for email in "abcdef":
            yield user(email)
            await eventually(functools.partial(node.taken.__contains__, email), "it was begun")
            await next_turn()

    with pytest.raises(NodeError) as caught:
        await apply(node, slowly())
    assert str(caught.value) == text
    assert type(caught.value) is (InternalError if isinstance(error, ZeroDivisionError) else type(error))
    assert node.done == ["a", "b"]


async def test_bytes_that_are_no_user_end_the_stream() -> None:
    async def sync(body: bytes) -> bytes:
        if body == b"\xff":
            raise InvalidRequestError("malformed User")
        return b""

    with pytest.raises(
        InvalidRequestError, match=r"malformed User \(at user 2 of the stream\) \(\d of \d users applied\)"
    ):
        await streams.apply_users(given([user("a"), b"\xff"]), sync, alone_bytes=MIB)


async def test_an_error_of_the_stream_itself_says_how_far_it_got() -> None:
    node = Node()
    with pytest.raises(DeadlineExceededError, match=r"no message came \(2 of 2 users applied\)"):
        await apply(node, given([user("a"), user("b")], DeadlineExceededError("no message came")))


async def test_what_was_read_before_a_stream_broke_off_is_applied() -> None:
    node = Node()
    node.open.clear()

    async def unfinished() -> AsyncIterator[bytes]:
        yield user("a")
        yield user("b")
        await asyncio.Event().wait()

    applying = asyncio.create_task(apply(node, unfinished()))
    await eventually(lambda: node.taken == ["a", "b"], "both are under way")
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    node.open.set()
    await eventually(lambda: node.done == ["a", "b"], "both are applied")


async def test_a_user_that_takes_a_thread_is_not_overtaken() -> None:
    node = Node()
    node.open.clear()
    applying = asyncio.create_task(apply(node, given([user("a"), user("big", 200), user("c")]), alone_bytes=100))
    await eventually(lambda: node.taken == ["a"], "the first is under way")
    await next_turn()
    assert node.taken == ["a"]
    node.open.set()
    await applying
    assert node.taken == ["a", "big", "c"]


def chunk(index: int, *emails: str, last: bool = False) -> bytes:
    return pb.UsersChunk(users=[pb.User(email=email) for email in emails], index=index, last=last).SerializeToString()


async def assembled(*bodies: bytes, max_bytes: int = MIB) -> list[str]:
    users = pb.Users.FromString(await streams.assemble(given(bodies), max_bytes=max_bytes))
    return [found.email for found in users.users]


async def test_chunks_become_one_set_in_the_order_of_their_indexes() -> None:
    assert await assembled(chunk(1, "c"), chunk(0, "a", "b"), chunk(2, "d", last=True)) == ["a", "b", "c", "d"]


async def test_what_follows_the_last_chunk_is_no_part_of_the_set() -> None:
    assert await assembled(chunk(0, "a", last=True), chunk(1, "b"), b"\xff") == ["a"]


async def test_a_caller_that_does_not_end_its_stream_gets_its_answer() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield chunk(0, "a", last=True)
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        users = pb.Users.FromString(await streams.assemble(endless(), max_bytes=MIB, end_seconds=0.01))
    assert [found.email for found in users.users] == ["a"]


@pytest.mark.parametrize(
    ("bodies", "text"),
    [
        ([chunk(0, "a"), chunk(2, "c", last=True)], "missing chunk index 1"),
        ([chunk(0, "a")], "missing final chunk indicator"),
        ([], "missing final chunk indicator"),
        ([chunk(1, "d"), chunk(0, "a", last=True)], "beyond the last chunk"),
        ([chunk(0, "a"), b"\xff\xff"], "malformed UsersChunk: message 2 of the stream"),
    ],
)
async def test_a_set_that_is_not_whole_is_refused(bodies: list[bytes], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        await assembled(*bodies)


async def test_a_set_that_is_too_large_is_refused_before_it_is_there() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield chunk(read, "x" * 1000)

    with pytest.raises(TooLargeError, match=r"more than 10000 bytes.*MAX_BODY_MIB"):
        await streams.assemble(endless(), max_bytes=10_000)
    assert read < 12


async def test_the_callers_deadline_bounds_what_is_begun_for_it() -> None:
    assert deadline.remaining(5.0) == 5.0

    async def call() -> None:
        deadline.set_caller_timeout(2.0)
        assert 1.0 < deadline.remaining(5.0) <= 2.0
        assert deadline.remaining(0.5) == 0.5
        deadline.set_caller_timeout(0.0)
        with pytest.raises(DeadlineExceededError, match="nothing was begun"):
            deadline.remaining(5.0)

    await asyncio.create_task(call())
    assert deadline.remaining(5.0) == 5.0, "each call has a deadline of its own"
