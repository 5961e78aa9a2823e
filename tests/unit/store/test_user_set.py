"""Users packed together: they come back in their order, and a damaged row is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.user_set import pack, unpack

USERS = st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=9)


@given(USERS, st.integers(1, 4))
def test_what_is_packed_is_unpacked(users: dict[str, bytes], row_users: int) -> None:
    rows = list(pack(users, row_users))
    assert len(rows) == -(-len(users) // row_users)
    assert list(unpack(rows).items()) == list(users.items())


def test_a_user_takes_few_bytes_beside_its_own() -> None:
    users = {f"user{number}": bytes(200) for number in range(1000)}
    assert sum(map(len, pack(users))) < sum(len(key) + len(raw) + 9 for key, raw in users.items())


@pytest.mark.parametrize("at", [0, 4, 12, -1])
def test_a_damaged_row_is_told(at: int) -> None:
    [row] = pack({"alice": b"one", "bob": b"two"})
    with pytest.raises(ValueError, match="a row of the set of users is"):
        unpack([row[:at] if at else b"\x07" + row[1:]])


def test_lengths_that_do_not_fit_are_told() -> None:
    [row] = pack({"alice": b"one"})
    with pytest.raises(ValueError, match="is damaged"):
        unpack([row + b"more"])
