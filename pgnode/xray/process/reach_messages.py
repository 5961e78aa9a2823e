"""What a supervisor asks of the thread in the core's process, and what that answers: a line of JSON each. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pgnode.os_support.tcp_ends import Connection, Door, Seen, Target

#: The socket, in the core's folder.
REACH_NAME: Final = "reach.sock"

#: Bytes of a question at most: some hundred thousand connections.
QUESTION_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Question:
    """Which connections are looked at, and which of them are shut down."""

    doors: Sequence[Door]
    targets: Sequence[Target] = field(default_factory=tuple)
    #: Whether all of them are to be told.
    listed: bool = False

    def encode(self) -> bytes:
        """Return the line."""
        doors = [[door.address, door.ports] for door in self.doors]
        return json.dumps({"doors": doors, "targets": self.targets, "listed": self.listed}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Question:
        """Read what :meth:`encode` made. Raises ValueError, TypeError or KeyError."""
        asked = json.loads(line)
        doors = [
            Door(str(address), tuple((int(first), int(last)) for first, last in ports))
            for address, ports in asked["doors"]
        ]
        targets = [(str(peer), int(port), int(place)) for peer, port, place in asked["targets"]]
        return cls(doors, targets, bool(asked["listed"]))


def encode_answer(seen: Seen) -> bytes:
    """Return the line that answers."""
    found = [[place, *connection] for place, connection in seen.found]
    return json.dumps({"found": found, "cut": seen.cut}).encode() + b"\n"


def encode_failure(text: str) -> bytes:
    """Return the line that says why there is no answer."""
    return json.dumps({"error": text}).encode() + b"\n"


def decode_answer(line: bytes) -> Seen:
    """Read an answer.

    Args:
        line: What came.

    Returns:
        What was found and done.

    Raises:
        OSError: The thread says that it could not.
        ValueError: It is no answer.
    """
    try:
        said = json.loads(line)
        if "error" in said:
            raise OSError(str(said["error"]))
        found = [
            (int(place), Connection(str(peer), int(peer_port), str(local), int(local_port)))
            for place, peer, peer_port, local, local_port in said["found"]
        ]
        return Seen(found, [(str(peer), int(port), int(place)) for peer, port, place in said["cut"]])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it answered something else: {error}") from None
