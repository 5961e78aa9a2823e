"""Commands that are delivered twice, on the supervisor's side. Pure.

A worker asks again when it cannot know whether a command was lost. Done a second time, it could undo a later change that was
answered meanwhile. So a repeated command is not begun while it is being done, and is answered as before once it was done.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from pgnode.bus.commands import Command

#: Answers that are remembered: those of the last second or so under the highest load. A worker asks again after a second.
ANSWERS_KEPT = 8192

#: Bytes of an answer that is remembered at most. Larger ones are statistics, which are on loan under the command's id.
ANSWER_BYTES = 1024


class Duplicates:
    """Which commands are being done, and how those that were done were answered."""

    def __init__(self) -> None:
        #: Commands that are being done.
        self._held: set[str] = set()
        #: Those of them that came again -> the further entries that hold them.
        self._further: dict[str, list[str]] = {}
        #: Command -> its answer, the oldest first.
        self._answers: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Duplicates({len(self._held)} being done, {len(self._answers)} answered)"

    def hold(self, commands: Iterable[Command]) -> list[Command]:
        """Note that commands were taken.

        Args:
            commands: The commands.

        Returns:
            Those that are to be done. The entries of the others, which are being done already, go with their answers.
        """
        held, begun = self._held, []
        for command in commands:
            if command.id in held:
                self._further.setdefault(command.id, []).append(command.entry_id)
            else:
                held.add(command.id)
                begun.append(command)
        return begun

    def further(self, commands: Iterable[Command]) -> list[str]:
        """Return the further entries that hold some commands, which are acknowledged with their answers."""
        if not self._further:
            return []
        return [entry_id for command in commands for entry_id in self._further.get(command.id, ())]

    def release(self, commands: Iterable[Command]) -> list[str]:
        """Note that commands were answered, or shall be taken again; return the further entries that hold them."""
        ids = [command.id for command in commands]
        self._held.difference_update(ids)
        if not self._further:
            return []
        return [entry_id for command_id in ids for entry_id in self._further.pop(command_id, ())]

    def remember(self, answers: Iterable[tuple[str, bytes]]) -> None:
        """Note how commands were answered, by their ids, for when they come again."""
        kept = self._answers
        for command_id, answer in answers:
            if len(answer) <= ANSWER_BYTES:
                kept[command_id] = answer
        if len(kept) > ANSWERS_KEPT:
            for command_id in list(islice(kept, len(kept) - ANSWERS_KEPT)):
                del kept[command_id]

    def answered(self, commands: Iterable[Command]) -> dict[str, bytes]:
        """Return how those of some commands were answered of which that is known, by their ids."""
        kept = self._answers
        return {command.id: kept[command.id] for command in commands if command.id in kept}
