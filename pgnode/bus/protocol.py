"""The protocol of the bus: its number, which both sides compare, and what a supervisor says of itself. Pure.

Programs of different versions work together as long as the number is the same. It rises when keys, commands, replies or snapshots
change in a way that the other side would get wrong; what is only added is left out by who does not know it. This module's own
form, and the fields ``kind``, ``host``, ``pid``, ``version`` and ``protocol`` of reports, stay as they are for ever.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

#: The number, and the one place where it is.
PROTOCOL: Final = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """What a supervisor says of itself to its workers."""

    protocol: int = PROTOCOL
    #: Of the program.
    version: str = ""
    #: SHA-256 of the API key as nearly everybody writes it, in hexadecimal; "" where it is not told.
    key: str = ""
    #: The same of the previous one; "" for none. It is valid for so many milliseconds from when this was sent.
    previous: str = ""
    previous_ms: int = 0

    def __repr__(self) -> str:
        return f"Hello(protocol {self.protocol}, version {self.version})"

    def encode(self) -> bytes:
        """Return it as it is on the bus."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """Read what :meth:`encode` made, perhaps of another version.

        Args:
            data: It.

        Returns:
            What the supervisor said; what is not known here is left out.

        Raises:
            ValueError: It is something else.
        """
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("what a supervisor says of itself is a JSON object")
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        hello = cls(**known)
        if any(not isinstance(value, type(getattr(cls(), name))) for name, value in known.items()):
            raise ValueError("what a supervisor says of itself are numbers and texts")
        return hello


def disagreement(hello: Hello, version: str, *, protocol: int = PROTOCOL) -> str:
    """Say why a worker cannot work with a supervisor, "" where it can.

    Args:
        hello: What the supervisor says.
        version: The worker's version.
        protocol: The worker's protocol.

    Returns:
        A sentence.
    """
    if hello.protocol == protocol:
        return ""
    older = "the worker" if protocol < hello.protocol else "the node"
    return (
        f"this worker ({version}) speaks protocol {protocol} of the bus, and its node ({hello.version}) speaks {hello.protocol}: "
        f"update {older}"
    )


def worker_field(protocol: int = PROTOCOL) -> bytes:
    """Return the field of a command entry that names the worker; it tells protocols apart."""
    return b"w" if protocol == 1 else b"w%d" % protocol


def protocol_of(field: bytes) -> int | None:
    """Return of which protocol a field of a command entry is that names the worker; None where it is another field."""
    if field == b"w":
        return 1
    return int(field[1:]) if field[:1] == b"w" and field[1:].isdigit() else None
