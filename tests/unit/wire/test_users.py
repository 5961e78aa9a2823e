"""A message of users as bytes: the same users that the parser finds."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pgnode.wire import service_pb2 as pb
from pgnode.wire.users import leading_email, split_users

USERS = st.builds(pb.User, email=st.text(max_size=200), inbounds=st.lists(st.text(max_size=100), max_size=3))


@given(st.lists(USERS, max_size=5))
def test_the_parts_are_the_users(users: list[pb.User]) -> None:
    body = pb.Users(users=users).SerializeToString()
    assert [pb.User.FromString(part) for part in split_users(body)] == users


@given(st.lists(USERS, min_size=1, max_size=3), st.data())
def test_what_is_cut_short_is_refused_or_ends_between_users(users: list[pb.User], data: st.DataObject) -> None:
    body = pb.Users(users=users).SerializeToString()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    try:
        parts = list(split_users(cut))
    except DecodeError:
        with pytest.raises(DecodeError):
            pb.Users.FromString(cut)
    else:
        assert [pb.User.FromString(part) for part in parts] == list(pb.Users.FromString(cut).users)


def test_other_fields_are_refused() -> None:
    with pytest.raises(DecodeError):
        list(split_users(b"\x12\x01a"))


@given(USERS)
def test_the_email_at_the_head_is_the_users(user: pb.User) -> None:
    assert leading_email(user.SerializeToString()) in (None, user.email)


@pytest.mark.parametrize("raw", [b"", b"\x0a", b"\x0a\x00", b"\x0a\x02\xff\xfe", b"\x12\x01a"])
def test_what_has_no_email_at_its_head_has_none(raw: bytes) -> None:
    assert leading_email(raw) is None
