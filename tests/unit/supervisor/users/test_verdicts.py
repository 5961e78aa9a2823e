"""Whether one user can be had."""

from __future__ import annotations

import pytest

from pgnode.store.changes import Journal
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.table import UserTable
from pgnode.supervisor.users.verdicts import Check, accept, validate
from pgnode.wire.texts import EMAIL_CHARACTERS_MAX
from tests.unit.supervisor.users.models import INBOUNDS, vless_user


def staged() -> tuple[UserTable, RejectedUsers]:
    return UserTable(Journal()), RejectedUsers(Journal(), lambda: 0.0)


def test_a_user_that_can_be_had_becomes_desired() -> None:
    table, rejected = staged()
    user, keys = vless_user("Alice", 1), set[str]()
    verdict = validate(user, table, rejected, INBOUNDS)
    assert (verdict.key, verdict.refusal, len(verdict.numbers or ())) == ("alice", None, 1)
    assert accept(verdict, table, rejected, keys) is None
    assert (keys, table.keys()) == ({"alice"}, {"alice"})
    assert validate(user, table, rejected, INBOUNDS).numbers is None


def test_a_user_that_cannot_be_had_is_on_the_list_and_stands_there() -> None:
    table, rejected = staged()
    user, keys = vless_user("alice", 1), set[str]()
    user.proxies.vless.id = "none"
    verdict = validate(user, table, rejected, INBOUNDS)
    assert accept(verdict, table, rejected, keys) is not None
    assert (list(rejected), keys) == (["alice"], set())
    assert validate(user, table, rejected, INBOUNDS).stands
    assert not validate(user, table, rejected, INBOUNDS, Check.AGAIN).stands


@pytest.mark.parametrize("email", ["x" * (EMAIL_CHARACTERS_MAX + 1), "a\nb", "a\x7fb", "x" * 5_000_000])
def test_a_name_that_cannot_be_shown_is_named_in_short_and_kept_nowhere(email: str) -> None:
    table, rejected = staged()
    keys = set[str]()
    verdict = validate(vless_user(email, 1), table, rejected, INBOUNDS)
    refusal = accept(verdict, table, rejected, keys)
    assert refusal is not None
    assert len(str(refusal)) < 200
    assert str(refusal).isprintable()
    assert (len(table), len(rejected), keys) == (0, 0, set())
    removal = validate(vless_user(email, 1, ()), table, rejected, INBOUNDS)
    assert accept(removal, table, rejected, keys) is None
    assert table.differing(keys) == []


def test_a_name_with_what_parts_the_names_of_counters_is_rejected() -> None:
    table, rejected = staged()
    refusal = accept(validate(vless_user("a>>>b", 1), table, rejected, INBOUNDS), table, rejected, set())
    assert refusal is not None
    assert ">>>" in refusal.cause
    assert list(rejected) == ["a>>>b"]


def test_a_name_that_an_older_node_took_is_given_up() -> None:
    table, rejected = staged()
    user, keys = vless_user("a>>>b", 1), set[str]()
    table.restore({"a>>>b": user.SerializeToString(deterministic=True)})
    accept(validate(user, table, rejected, INBOUNDS, Check.ALL), table, rejected, keys)
    assert (keys, len(table)) == ({"a>>>b"}, 0)
