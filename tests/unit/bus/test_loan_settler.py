"""What became of a loan is told until the supervisor has stored it, once."""

from __future__ import annotations

import asyncio

from pgnode.bus import loan_settler
from pgnode.bus.commands import Kind, parse_settlement
from pgnode.bus.loan_settler import LoanSettler
from pgnode.errors import BusUnavailableError, NodeError
from tests.support.polling import eventually, next_turn


class Supervisor:
    """Takes settlements, after a number of failures."""

    def __init__(self, *failures: NodeError) -> None:
        self.failures = list(failures)
        self.told: list[tuple[str, bool]] = []
        self.holds = asyncio.Event()
        self.holds.set()

    async def call(self, kind: Kind, body: bytes, budget_seconds: float) -> bytes:
        assert kind is Kind.SETTLE
        assert budget_seconds == loan_settler.SETTLE_SECONDS
        await self.holds.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.told.append(parse_settlement(body))
        return b""


async def test_it_is_told_until_it_is_stored() -> None:
    supervisor = Supervisor(BusUnavailableError("away"), BusUnavailableError("still away"))
    settler = LoanSettler(supervisor.call, pause_seconds=0)
    settler.settle("one", delivered=True)
    assert repr(settler) == "LoanSettler(1 to tell)"
    settler.settle("two", delivered=False)
    await eventually(lambda: len(supervisor.told) == 2, "both are told")
    assert sorted(supervisor.told) == [("one", True), ("two", False)]
    await settler.close()


async def test_the_first_word_counts() -> None:
    supervisor = Supervisor()
    settler = LoanSettler(supervisor.call)
    settle = settler.once("one")
    for delivered in (False, True, False):
        settle(delivered)
    await settler.close()
    assert supervisor.told == [("one", False)]


async def test_a_worker_that_ends_gives_it_a_moment_and_no_more() -> None:
    supervisor = Supervisor()
    supervisor.holds.clear()
    settler = LoanSettler(supervisor.call, last_words_seconds=0.01)
    settler.settle("one", delivered=True)
    await settler.close()
    settler.settle("two", delivered=True)
    supervisor.holds.set()
    await next_turn()
    assert supervisor.told == []
    assert repr(settler) == "LoanSettler(0 to tell)"
