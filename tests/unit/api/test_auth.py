"""The key, compared by its value."""

from __future__ import annotations

import uuid
from hashlib import sha256

import pytest

from pgnode.api.auth import CURRENT, PREVIOUS, ApiKeys, KeyCheck

KEY = "123e4567-e89b-42d3-a456-426614174000"


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-api-key": KEY.encode()},
        {b"x-api-key": b" {" + KEY.upper().encode() + b"} "},
        {b"x-api-key": b"urn:uuid:" + KEY.encode()},
        {b"authorization": b"bearer " + KEY.encode()},
        {b"x-api-key": b"wrong", b"authorization": b"Bearer " + KEY.encode()},
    ],
)
def test_the_key_in_any_notation(headers: dict[bytes, bytes]) -> None:
    assert KeyCheck(KEY.upper())(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"x-api-key": b""},
        {b"x-api-key": KEY.replace("1", "2").encode()},
        {b"x-api-key": b"\xff" * 36},
        {b"x-api-key": KEY.encode() * 2},
        {b"authorization": KEY.encode()},
        {b"authorization": b"Basic " + KEY.encode()},
    ],
)
def test_anything_else_is_not_the_key(headers: dict[bytes, bytes]) -> None:
    assert not KeyCheck(KEY)(headers)


def test_a_key_that_is_no_uuid_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        KeyCheck("secret")
    assert KEY not in repr(KeyCheck(KEY))


OLD = "99999999-e89b-42d3-a456-426614174000"


def test_two_keys_are_valid_after_a_rotation_and_it_is_told_which_was_brought() -> None:
    used: list[None] = []
    keys = ApiKeys(KEY, OLD.upper(), on_previous=lambda: used.append(None))
    assert keys.find({b"x-api-key": KEY.encode()}) == CURRENT
    assert not used
    assert keys.find({b"authorization": b"Bearer " + OLD.encode()}) == PREVIOUS
    assert keys.find({b"x-api-key": b"wrong"}) == ""
    assert len(used) == 1
    assert KEY not in repr(keys)


def test_other_keys_are_taken_for_the_next_request() -> None:
    keys, told = ApiKeys(OLD), list[bytes]()
    keys.tell(told.append)
    keys.replace(KEY, OLD)
    assert keys.find({b"x-api-key": OLD.encode()}) == PREVIOUS
    with pytest.raises(ValueError, match="badly formed"):
        keys.replace(OLD, "nonsense")
    assert keys.find({b"x-api-key": KEY.encode()}) == CURRENT
    keys.replace(KEY, None)
    assert keys.find({b"x-api-key": OLD.encode()}) == ""
    assert told == [OLD.encode(), KEY.encode(), KEY.encode()]
    assert ApiKeys.of(keys) is keys
    assert ApiKeys.of(KEY).find({b"x-api-key": KEY.encode()}) == CURRENT


def test_a_key_of_which_the_digest_is_known_is_found_when_it_is_sent() -> None:
    keys, told = ApiKeys(None), list[bytes]()
    keys.tell(told.append)
    assert [keys.is_known] == [False]
    assert keys.find({b"x-api-key": KEY.encode()}) == ""
    assert keys.find({b"x-api-key": b""}) == ""
    assert keys.take_digests(sha256(KEY.encode()).hexdigest(), None)
    assert not keys.take_digests(sha256(KEY.encode()).hexdigest(), None), "it is the same"
    assert keys.is_known
    assert KEY.encode() not in told
    for wrong in (b"", b"x", b"\xff", b"x" * 100, str(uuid.uuid4()).encode(), told[-1]):
        assert keys.find({b"x-api-key": wrong}) == ""
    assert keys.find({b"authorization": b"Bearer {" + KEY.upper().encode() + b"}"}) == CURRENT
    assert told[-1] == KEY.encode(), "from here on it is compared as any other"
    assert keys.find({b"x-api-key": KEY.encode()}) == CURRENT
    assert keys.digests == ApiKeys(KEY).digests


def test_the_previous_key_by_its_digest_ends_without_the_other_one_being_found_anew() -> None:
    other = str(uuid.uuid4())
    keys = ApiKeys(None)
    keys.take_digests(sha256(KEY.encode()).hexdigest(), sha256(other.encode()).hexdigest())
    assert keys.find({b"x-api-key": other.encode()}) == PREVIOUS
    assert keys.find({b"x-api-key": KEY.encode()}) == CURRENT
    assert not keys.take_digests(sha256(KEY.encode()).hexdigest(), None)
    assert keys.find({b"x-api-key": other.encode()}) == ""
    assert keys.find({b"x-api-key": KEY.encode()}) == CURRENT
