"""Commands that wait for their answers, by their ids. Pure.

A command may be lost: Redis is a bus, and may be emptied or restarted at any time. So each is kept as it was asked until it is
answered, and can be sent again, under the same id and with the time that is left to its caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pgnode.bus.commands import DONE, DONE_BYTES, Kind, Reply
from pgnode.errors import DeadlineExceededError, NodeError


class Waiter(Protocol):
    """Whoever waits for an answer; a future is one."""

    def done(self) -> bool:
        """Return whether it has its answer, or waits no longer."""

    def set_result(self, reply: Reply, /) -> None:
        """Take the answer."""


@dataclass(slots=True, eq=False)
class PendingCommand:
    """One command, from the moment at which it was asked to its answer."""

    id: bytes
    kind: Kind
    body: bytes
    #: Seconds that its caller waits in all.
    budget_seconds: float
    #: Until when the supervisor can answer, on the clock that :class:`PendingCommands` is told of.
    answer_by: float
    #: When it is given up, a moment later.
    ends_at: float
    #: Takes the answer.
    waiter: Waiter
    #: The entry of the stream that holds it; "" while it waits to be sent.
    entry_id: str = ""
    #: When it was sent.
    sent_at: float = 0.0
    #: A single change that was sent and has no answer.
    under_way: bool = False

    def answer(self, reply: Reply) -> None:
        """Hand over the answer, unless nobody waits for it any more."""
        if not self.waiter.done():
            self.waiter.set_result(reply)


class PendingCommands:
    """All of them, in the order in which they were asked, and the queue of those that wait to be sent."""

    def __init__(self) -> None:
        self._commands: dict[bytes, PendingCommand] = {}
        self._queue: deque[bytes] = deque()

    def __repr__(self) -> str:
        return f"PendingCommands({len(self._commands)}, {len(self._queue)} to be sent)"

    def __len__(self) -> int:
        return len(self._commands)

    @property
    def waiting(self) -> int:
        """How many wait to be sent; some of their callers may have gone."""
        return len(self._queue)

    def add(self, command: PendingCommand) -> int:
        """Take a command, to be sent; return how many wait for that."""
        self._commands[command.id] = command
        self._queue.append(command.id)
        return len(self._queue)

    def remove(self, command_id: bytes) -> int:
        """Forget a command that was answered, or whose caller has gone; return how many wait to be sent."""
        del self._commands[command_id]
        return len(self._queue)

    def take(self, most: int) -> list[PendingCommand]:
        """Take what is to be sent next from the queue, oldest first; without those whose callers have gone.

        Args:
            most: So many places of the queue at most.

        Returns:
            The commands.
        """
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), most))]
        return [command for command_id in taken if (command := self._commands.get(command_id)) is not None]

    def put_back(self, commands: Sequence[PendingCommand]) -> None:
        """Queue commands once more, before all that wait: they could not be sent, or were lost."""
        for command in commands:
            command.entry_id = ""
        self._queue.extendleft(command.id for command in reversed(commands))

    def hand_over(self, command_id: bytes, data: bytes) -> None:
        """Hand over an answer, as it came; one that nobody waits for is dropped."""
        command = self._commands.get(command_id)
        if command is not None and not command.waiter.done():
            command.waiter.set_result(DONE if data == DONE_BYTES else Reply.decode(data))

    def expects(self, command_id: bytes) -> bool:
        """Return whether somebody waits for this answer."""
        return command_id in self._commands

    def fail(self, error: NodeError, commands: Iterable[PendingCommand] | None = None) -> None:
        """Answer with an error.

        Args:
            error: What to answer.
            commands: To which ones; all when it is left out.
        """
        for command in list(self._commands.values() if commands is None else commands):
            command.answer(Reply(error=error))

    def fail_overdue(self, now: float) -> None:
        """Tell the callers whose time is up."""
        for command in list(self._commands.values()):
            if command.ends_at <= now:
                text = f"no answer from the supervisor within {command.budget_seconds:g} s"
                command.answer(Reply(error=DeadlineExceededError(text)))

    def sent_before(self, moment: float) -> dict[str, list[PendingCommand]]:
        """Return the commands that were sent before a moment and have no answer, by the entry that holds them."""
        found: dict[str, list[PendingCommand]] = {}
        for command in self._commands.values():
            if command.entry_id and command.sent_at < moment:
                found.setdefault(command.entry_id, []).append(command)
        return found
