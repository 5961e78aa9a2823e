"""Hashes of earlier versions become changes to a new store."""

from __future__ import annotations

import pytest

from pgnode.store.changes import StoreChanges
from pgnode.store.legacy import HASHES, changes_of
from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart, RejectedUser

NOTHING: dict[str, dict[bytes, bytes]] = {name: {} for name in HASHES}


def test_everything_is_read() -> None:
    hashes = {
        "backend": {b"config": b"\x01", b"active": b"1", b"core_run": b"7", b"taken": b"c1", b"generation": b"9"},
        "users": {b"al@x": b"\x00\xff"},
        "failed": {b"bob": b'{"email": "Bob", "cause": "no", "at_ms": 5, "by_core": true, "user": "AAE="}'},
        "overtaken": {b"al@x": b"c2"},
        "routing": {b"base": b"ab", b"rules": b"[]"},
        "ledger": {b"run": b"3 boot:1:2", b"user>>>a>>>traffic>>>uplink": b"10 4 6 2"},
        "loans": {b"l:0": b'["l", "user", "w"]\n\x0a\x00'},
    }
    assert changes_of(hashes) == StoreChanges(
        meta={"backend": b"\x01", "active": 1, "core_run": 7},
        users={"al@x": b"\x00\xff"},
        rejected={"bob": RejectedUser("Bob", "no", 5, b"\x00\x01", by_core=True)},
        superseded={"al@x": "c2"},
        taken={"c1": "users"},
        routing={"base": "ab", "rules": "[]"},
        run=LedgerRun(3, "boot:1:2"),
        counters={"user>>>a>>>traffic>>>uplink": LedgerRow(10, 4, 6, 2)},
        loans={"l:0": LoanPart("l", "user", "w", b"\x0a\x00")},
    )


def test_nothing_is_nothing() -> None:
    assert changes_of(NOTHING) is None


def test_books_of_a_version_before_0_4_belong_to_the_run_that_was_read_last() -> None:
    changes = changes_of({**NOTHING, "ledger": {b"run": b"boot:17:4711", b"user>>>a": b"100 40 30"}})
    assert changes is not None
    assert changes.run == LedgerRun(1, "boot:17:4711")
    assert changes.counters == {"user>>>a": LedgerRow(100, 40, 30, 1)}


def test_a_stopped_node_of_which_only_the_books_are_left() -> None:
    changes = changes_of({**NOTHING, "ledger": {b"user>>>a": b"100 40 0 5"}})
    assert changes is not None
    assert (changes.run, changes.meta) == (LedgerRun(0, ""), {"backend": None, "active": 0, "core_run": 0})


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("ledger", b"1 x 2", "counter 'key' reads '1 x 2'"),
        ("ledger", b"", "counter 'key' reads ''"),
        ("loans", b"no JSON\nbody", "loan 'key' begins with 'no JSON'"),
        ("ledger", b"x" * 5_000_000, f"counter 'key' reads '{'x' * 40}…'"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        changes_of({**NOTHING, name: {b"key": data}})


def test_a_rejected_user_that_is_damaged_is_rejected_still() -> None:
    changes = changes_of(NOTHING | {"failed": {b"k\xff": b"{}"}})
    assert changes is not None
    assert list(changes.rejected.values()) == [
        RejectedUser("k\ufffd", "what was stored of this user is damaged", 0, b"")
    ]
