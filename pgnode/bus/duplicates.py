"""Commands that are delivered twice, on the supervisor's side. Pure.

A worker asks again when it cannot know whether a command was lost. Done a second time, it could undo a later change that was
answered meanwhile. So a repeated command is not begun while it is being done, and is answered as before once it was done.
"""

from __future__ import annotations

from collections import OrderedDict

#: Answers that are remembered: those of the last second or so under the highest load. A worker asks again after a second.
ANSWERS_KEPT = 8192

#: Bytes of an answer that is remembered at most. Larger ones are statistics, which are on loan under the command's id.
ANSWER_BYTES = 1024


class Duplicates:
    """Which commands are being done, and how those that were done were answered."""

    def __init__(self) -> None:
        #: Command that is being done -> further entries that hold it.
        self._held: dict[str, list[str]] = {}
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"Duplicates({len(self._held)} being done, {len(self._answers)} answered)"

    def hold(self, command_id: str, entry_id: str) -> bool:
        """Note that a command was taken.

        Args:
            command_id: The command.
            entry_id: The entry that holds it.

        Returns:
            Whether it is to be done; False when it is being done already, and the entry goes with its answer.
        """
        further = self._held.get(command_id)
        if further is None:
            self._held[command_id] = []
            return True
        further.append(entry_id)
        return False

    def entries(self, command_id: str) -> list[str]:
        """Return the further entries that hold a command, which are acknowledged with its answer."""
        return self._held.get(command_id, [])

    def release(self, command_id: str) -> list[str]:
        """Note that a command was answered, or shall be taken again; returns its further entries."""
        return self._held.pop(command_id, [])

    def remember(self, command_id: str, answer: bytes) -> None:
        """Note how a command was answered, for when it comes again."""
        if len(answer) <= ANSWER_BYTES:
            self._answers[command_id] = answer
            if len(self._answers) > ANSWERS_KEPT:
                self._answers.popitem(last=False)

    def answer(self, command_id: str) -> bytes | None:
        """Return how a command was answered; None where that is not known."""
        return self._answers.get(command_id)
