"""The key, compared by its value."""

from __future__ import annotations

import pytest

from pgnode.api.auth import KeyCheck

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
