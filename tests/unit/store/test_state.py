"""What an empty store holds."""

from __future__ import annotations

from dataclasses import asdict

from pgnode.store.state import StoredState


def test_an_empty_store_holds_nothing_and_shares_nothing() -> None:
    one, other = StoredState(), StoredState()
    assert not any(asdict(one).values())
    one.users["alice"] = b"1"
    one.settled["loan"] = True
    assert other == StoredState()
