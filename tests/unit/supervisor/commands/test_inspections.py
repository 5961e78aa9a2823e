"""Commands that only look, and how many of them may be under way."""

from __future__ import annotations

import asyncio

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import UnavailableError
from pgnode.supervisor.commands.inspections import Inspections
from tests.support.polling import eventually


async def test_inspections_under_way_have_a_limit() -> None:
    go_on = asyncio.Event()
    sent: list[Reply] = []

    async def answer(_command: Command) -> Reply:
        await go_on.wait()
        return Reply()

    async def send(_command: Command, reply: Reply) -> None:
        sent.append(reply)

    inspections = Inspections(answer, send, most=2)
    for number in range(3):
        inspections.begin(Command("0-1", str(number), Kind.LIST_RULES, "w", 1000, b""))
    await eventually(lambda: sent, "one is refused at once")
    assert isinstance(sent[0].error, UnavailableError)
    go_on.set()
    await eventually(lambda: len(sent) == 3, "the others are answered")
    assert [reply.error for reply in sent[1:]] == [None, None]
    await eventually(lambda: repr(inspections) == "Inspections(0 under way)", "none is left")
