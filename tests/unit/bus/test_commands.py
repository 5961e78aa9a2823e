"""Commands and replies as bytes and back."""

from __future__ import annotations

import pytest

from pgnode.bus.commands import (
    GATHERED_KINDS,
    INSPECTION_KINDS,
    MAINTENANCE_KINDS,
    QUERY_KINDS,
    WORKER_FIELD,
    Command,
    Kind,
    Reply,
    decode_entry,
    encode_command,
    parse_settlement,
    settlement,
)
from pgnode.errors import BY_CODE, InternalError, UsersRefusedError


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("body", [b"", b"\x00 \n*", bytes(100)])
def test_a_command_comes_back_as_it_was(kind: Kind, body: bytes) -> None:
    fields = {
        WORKER_FIELD: b"w1",
        b"c1": encode_command(kind, 1.5, body, blob=False),
        b"c2": encode_command(kind, 0.0, body, blob=True),
    }
    first, second = decode_entry("1-2", fields)
    assert (first.entry_id, first.id, first.kind, first.worker) == ("1-2", "c1", kind, "w1")
    assert (first.budget_ms, first.body, first.blob) == (1500, body, False)
    assert (second.id, second.kind, second.budget_ms, second.body, second.blob) == ("c2", kind, 0, b"", True)


@pytest.mark.parametrize("data", [b"", b"start", b"start 1", b"no_such_kind 1 ", b"start x body"])
def test_what_is_no_command(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        decode_entry("1-2", {WORKER_FIELD: b"w1", b"c1": data})


def test_an_entry_without_a_worker() -> None:
    with pytest.raises(KeyError):
        decode_entry("1-2", {b"c1": b"stop 1 "})


@pytest.mark.parametrize(
    "reply",
    [Reply(), Reply(body=b"\x00 x"), Reply(body=b"=1 x"), Reply(body=b"lent", lent=0), Reply(lent=3)],
)
def test_a_reply_comes_back_as_it_was(reply: Reply) -> None:
    assert Reply.decode(reply.encode()) == reply


@pytest.mark.parametrize("code", BY_CODE)
def test_an_error_comes_back_as_it_was(code: str) -> None:
    found = Reply.decode(Reply(error=BY_CODE[code]("the text: of it")).encode()).error
    assert type(found) is BY_CODE[code]
    assert str(found) == "the text: of it"


def test_an_error_that_nobody_knows_is_an_internal_one() -> None:
    assert isinstance(Reply.decode(b"FROM_THE_FUTURE text").error, InternalError)


def test_text_that_is_no_utf_8_is_no_reason_to_fail() -> None:
    error = Reply.decode(b"USER_REJECTED \xff").error
    assert isinstance(error, UsersRefusedError)


@pytest.mark.parametrize("delivered", [True, False])
def test_a_settlement_comes_back_as_it_was(delivered: bool) -> None:
    assert parse_settlement(settlement("loan", delivered=delivered)) == ("loan", delivered)
    with pytest.raises(ValueError, match="unpack"):
        parse_settlement(b"nothing")


def test_a_command_knows_when_nobody_waits_any_more() -> None:
    command = Command("1000-1", "c1", Kind.STOP, "w1", 500, b"body")
    assert command.expires_at_ms == 1500
    assert repr(command) == "Command(stop c1 from w1, 4 bytes)"


def test_kinds_that_are_done_apart_are_no_changes() -> None:
    apart = [QUERY_KINDS, MAINTENANCE_KINDS, INSPECTION_KINDS, GATHERED_KINDS]
    assert sum(map(len, apart)) == len(frozenset().union(*apart))
