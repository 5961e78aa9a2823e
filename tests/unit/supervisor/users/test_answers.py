"""What callers are told of their changes."""

from __future__ import annotations

from pgnode.bus.commands import Command, Kind
from pgnode.errors import CoreUnavailableError, InvalidRequestError
from pgnode.supervisor.users.answers import REFUSALS_SHOWN, Applied, UserChange, answer_to
from pgnode.supervisor.users.decoding import Refusal

COMMAND = Command("1-0", "1", Kind.SYNC_USER, "worker", 1000, b"")


def text(change: UserChange, applied: Applied, bad: InvalidRequestError | None = None) -> str:
    error = answer_to(change, applied, bad).error
    return error.text if error is not None else ""


def test_who_was_refused_is_named_to_whoever_asked_for_it() -> None:
    applied = Applied(refused={"alice": Refusal("Alice", "no")})
    assert text(UserChange(COMMAND, {"bob"}), applied) == ""
    change = UserChange(COMMAND, {"alice"}, [Refusal("carol", "not this one")])
    assert text(change, applied) == "failed to update users: carol: not this one; Alice: no"


def test_not_everybody_is_named() -> None:
    refusals = [Refusal(f"user{number}", "no") for number in range(REFUSALS_SHOWN + 2)]
    assert text(UserChange(COMMAND, set(), refusals), Applied()).endswith("user4: no; and 2 more")


def test_a_core_that_did_not_answer_is_told_of_to_whoever_it_concerns() -> None:
    applied = Applied(unanswered={"alice"}, error=CoreUnavailableError("the core is silent"))
    assert text(UserChange(COMMAND, {"bob"}), applied) == ""
    assert text(UserChange(COMMAND, {"alice"}), applied).endswith("the core is silent")


def test_a_wrong_request_is_called_one() -> None:
    assert text(UserChange(COMMAND), Applied(), InvalidRequestError("wrong")) == "wrong"
