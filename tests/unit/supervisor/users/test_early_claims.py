"""Credentials that are entered before their users are the desired ones: nobody is missing, and what is shared is contested."""

from __future__ import annotations

import pytest

from pgnode.store.changes import Journal
from pgnode.supervisor.users.credentials import CredentialIndex
from pgnode.supervisor.users.early_claims import EarlyClaims
from pgnode.supervisor.users.table import UserTable
from tests.unit.supervisor.users.models import INBOUNDS


@pytest.fixture
def table() -> UserTable:
    """A table whose index knows that alice has credential 1."""
    made = UserTable(Journal())
    made.use_credentials(CredentialIndex(INBOUNDS))
    made.credentials.claim("alice", [1])
    return made


def test_nothing_is_contested_before_they_are_the_desired_ones(table: UserTable) -> None:
    index, claims = table.credentials, EarlyClaims(table)
    claims.add("bob", [1, 2])
    assert index.holders(1) == ["alice", "bob"]
    assert index.contested == {}
    claims.claim()
    assert index.contested == {1: {"bob": None}}
    assert index.shared == set()


def test_who_asks_for_the_same_meanwhile_is_contested_then(table: UserTable) -> None:
    """It was settled when it was asked for, and is again, for by then there are two."""
    index, claims = table.credentials, EarlyClaims(table)
    claims.add("bob", [2, 3])
    index.claim("carol", [2])
    assert index.contested.pop(2) == {"carol": None}
    claims.claim()
    assert index.contested == {2: {"bob": None}}


def test_nobody_is_forgotten_who_will_have_it(table: UserTable) -> None:
    index, one, other = table.credentials, EarlyClaims(table), EarlyClaims(table)
    one.add("bob", [2])
    index.forget(2, "bob")
    other.drop()
    other.drop()
    index.forget(2, "bob")
    assert index.holders(2) == ["bob"]
    one.drop()
    index.forget(2, "bob")
    assert index.holders(2) == []


def test_an_index_that_was_made_anew_gets_them_as_well(table: UserTable) -> None:
    claims = EarlyClaims(table)
    claims.add("bob", [1, 2])
    table.use_credentials(CredentialIndex(INBOUNDS))
    table.credentials.claim("alice", [1])
    claims.claim()
    assert table.credentials.holders(2) == ["bob"]
    assert table.credentials.contested == {1: {"bob": None}}


def test_who_asked_for_what_others_have(table: UserTable) -> None:
    claims = EarlyClaims(table)
    claims.add("bob", [1, 2])
    claims.add("carol", [3])
    assert claims.asked_for({2, 3, 4}) == {"bob", "carol"}
    assert claims.asked_for({4}) == set()
    assert repr(claims) == "EarlyClaims(3 credentials)"
