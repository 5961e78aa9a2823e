"""Users of the store that cannot be had: an earlier version took them, or the file is damaged. All others are served."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.store.rows import RejectedUser
from pgnode.supervisor.users.stored_users import sort_out
from pgnode.wire import service_pb2 as pb

NOW_MS = 1_700_000_000_000
LONG = "E" * 5_000_000 + "@x"


def raw(email: str) -> bytes:
    return pb.User(email=email, inbounds=["VLESS"]).SerializeToString()


FINE = {"alice": raw("Alice"), "bob": raw("bob")}


def test_all_is_well() -> None:
    rejected = {"carol": RejectedUser("Carol", "why", 5, raw("Carol"), by_core=True)}
    found = sort_out(FINE, rejected, NOW_MS)
    assert (found.users, found.rejected, found.set_aside, found.renamed) == (FINE, rejected, [], [])


def test_long_names_are_cut_and_stay_apart() -> None:
    other = LONG.replace("@x", "@y")
    found = sort_out({**FINE, LONG.lower(): raw(LONG), other.lower(): raw(other)}, {}, NOW_MS)
    assert found.users == FINE
    assert found.set_aside == [LONG.lower(), other.lower()]
    first, second = found.rejected.items()
    assert first[1] == RejectedUser(
        f"'{'E' * 40}…'", "the e-mail has 5,000,002 characters, 256 are allowed", NOW_MS, b""
    )
    assert second[1].email == f"'{'E' * 40}…' (2)"
    assert [first[0], second[0]] == [first[1].email.lower(), second[1].email.lower()]


@pytest.mark.parametrize(
    ("key", "message", "name", "cause"),
    [
        ("a>>>b", raw("a>>>b"), "'a>>>b'", 'the e-mail has ">>>"'),
        ("a\nb", raw("a\nb"), "'a\\nb'", "the e-mail has the control character"),
        ("", raw(""), "''", "the e-mail is empty"),
        ("dora", b"\xff\xff", "dora", "what is stored of this user is damaged"),
        ("dora", "text", "dora", "what is stored of this user is damaged"),
        ("dora", None, "dora", "what is stored of this user is damaged"),
        ("dora", raw("somebody else"), "somebody else", "what is stored of this user is damaged"),
        (b"\xff", raw("dora"), "dora", "what is stored of this user is damaged"),
        (b"\xff", 5, "b'\\xff'", "what is stored of this user is damaged"),
    ],
)
def test_whoever_cannot_be_had_is_listed(key: Any, message: Any, name: str, cause: str) -> None:
    found = sort_out({**FINE, key: message}, {}, NOW_MS)
    assert found.users == FINE
    assert found.set_aside == [key]
    [listed] = found.rejected.values()
    assert listed.email == name
    assert listed.cause.startswith(cause)


@pytest.mark.parametrize(
    "row",
    [
        RejectedUser(LONG, "why", 5, raw(LONG)),
        RejectedUser("other", "why", 5, b""),
        RejectedUser("x\x1b", "why", 5, b""),
        RejectedUser("dora", "why", 5, b"\xff\xff"),
        RejectedUser("dora", "why", 5, None),  # type: ignore[arg-type]
        RejectedUser("dora", "why", "5", b""),  # type: ignore[arg-type]
        RejectedUser(None, 7, None, b""),  # type: ignore[arg-type]
    ],
)
def test_a_list_that_is_odd_is_put_right(row: RejectedUser) -> None:
    found = sort_out(FINE, {"dora": row}, NOW_MS)
    assert found.renamed == ["dora"]
    [(key, listed)] = found.rejected.items()
    assert key == listed.email.lower()
    assert len(listed.email) <= 256
    assert listed.user == b""
    assert listed.at_ms in (5, NOW_MS)
