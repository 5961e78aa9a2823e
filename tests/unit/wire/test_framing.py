"""Framing of chunked syncs: any order of chunks, any split of users, and every way to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import InvalidRequestError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import ChunkAssembler, frame, users_of

EMPTY_FRAMES = st.sampled_from([b"", b"\x00", b"\x00\x00", b"\x80\x00", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"])


def chunk(index: int, *emails: str, last: bool = False) -> pb.UsersChunk:
    return pb.UsersChunk(users=[pb.User(email=email) for email in emails], index=index, last=last)


def emails_of(body: bytes) -> list[str]:
    return [user.email for user in users_of(body).users]


@given(st.data())
def test_any_order_gives_users_by_index(data: st.DataObject) -> None:
    # Not without users: chunk 0 with nothing in it encodes to nothing, which is a frame that is skipped.
    groups = data.draw(st.lists(st.lists(st.text(max_size=200), min_size=1, max_size=4), min_size=1, max_size=8))
    chunks = [chunk(index, *group) for index, group in enumerate(groups)]
    order = [*data.draw(st.permutations(chunks[:-1])), chunks[-1]]
    chunks[-1].last = True
    body = b"".join(data.draw(EMPTY_FRAMES) + frame(item) for item in order)
    assert emails_of(body) == [email for group in groups for email in group]


@given(st.lists(st.text(max_size=50), max_size=5), st.lists(st.text(max_size=50), max_size=5), st.binary(max_size=20))
def test_equal_indexes_append_and_reading_stops_at_last(first: list[str], second: list[str], rest: bytes) -> None:
    body = frame(chunk(0, *first)) + frame(chunk(0, *second, last=True)) + rest
    assert emails_of(body) == first + second


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=20), st.data())
def test_a_body_cut_anywhere_is_refused(emails: list[str], data: st.DataObject) -> None:
    body = frame(chunk(0, *emails)) + frame(chunk(1, "z", last=True))
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(InvalidRequestError):
        users_of(body[:cut])


@given(st.binary(max_size=100))
def test_arbitrary_bytes_end_in_users_or_invalid_request(body: bytes) -> None:
    try:
        users = users_of(body)
    except InvalidRequestError:
        return
    assert isinstance(users, pb.Users)


@given(st.sampled_from([0, 1, 126, 127, 128, 129, 16_382, 16_383, 16_384, 16_385]))
def test_lengths_around_varint_borders(size: int) -> None:
    message = chunk(0, "e" * size, last=True)
    assert emails_of(frame(message)) == ["e" * size]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "missing final chunk indicator"),
        (b"\x00\x00", "missing final chunk indicator"),
        (frame(chunk(0, "a")), "missing final chunk indicator"),
        (frame(chunk(1, "a", last=True)), "missing chunk index 0"),
        (frame(chunk(0, "a")) + frame(chunk(2, "b", last=True)), "missing chunk index 1"),
        (frame(chunk(2**64 - 1, "a", last=True)), "missing chunk index 0"),
        (frame(chunk(0)) + frame(chunk(1)) + frame(chunk(0, last=True)), "beyond the last chunk"),
        (b"\x80", "cut short"),
        (b"\x05\x0a", "cut short"),
        (b"\xff" * 10, "no varint"),
        (b"\xff" * 9 + b"\x02", "no varint"),
        (b"\xff" * 9 + b"\x01", "cut short"),
        (b"\x01\xff", "malformed UsersChunk in the frame at byte 0"),
        (b"\x00\x05\x0a\x03\x0a\x01\xff", "malformed UsersChunk in the frame at byte 1"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        users_of(body)


def test_an_empty_set_is_fine() -> None:
    assert emails_of(frame(chunk(0, last=True))) == []


def test_assembler_ignores_what_follows_the_last_chunk() -> None:
    assembler = ChunkAssembler()
    assembler.add(chunk(0, "a", last=True))
    assert assembler.complete
    assembler.add(chunk(7, "b"))
    assert [user.email for user in assembler.users().users] == ["a"]
