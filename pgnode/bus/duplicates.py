"""Commands that come twice, on the supervisor's side. Pure.

A worker asks again when it cannot know whether a command was lost. Begun a second time while the first one is being done, it
could undo what somebody else was told is done; so it waits for the end of the first one, and is answered with it.
"""

from __future__ import annotations


class Duplicates:
    """Which commands are being done, and the further entries of the stream that hold them."""

    def __init__(self) -> None:
        self._held: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"Duplicates({len(self._held)} being done)"

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
        """Return the further entries that hold a command; they are acknowledged with its answer."""
        return self._held.get(command_id, [])

    def release(self, command_id: str) -> list[str]:
        """Note that a command was answered, or shall be taken again; returns its further entries."""
        return self._held.pop(command_id, [])
