"""What a supervisor leaves to the one that it becomes by a restart in place: locks, sockets and processes.

The pid stays, and so does every descriptor that is not closed at the exec. A document in an open file without a name tells the
next supervisor which of them is what; an environment variable tells it the number of that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

#: Tells the next supervisor the number of the descriptor.
VARIABLE: Final = "PGNODE_INHERITANCE_FD"


@dataclass(frozen=True, slots=True)
class InheritedProcess:
    """A child that goes on."""

    name: str
    pid: int
    #: What it runs.
    command: tuple[str, ...]
    #: Descriptor from which its output is read.
    output: int
    #: The beginning of a line of which the end has not come yet.
    rest: str = ""
    #: Descriptor of the channel to it; -1 for none.
    channel: int = -1


@dataclass(frozen=True, slots=True)
class Inheritance:
    """All that one supervisor leaves to the next."""

    #: Descriptor that holds the lock of the state folder; -1 for none.
    lock: int = -1
    #: Sockets by what they are for, such as "SERVICE_PORT 127.0.0.1 62050".
    sockets: Mapping[str, int] = field(default_factory=dict)
    processes: tuple[InheritedProcess, ...] = ()
    #: How often this node was restarted in place.
    restarts: int = 0
    #: When it was because of an error: seconds on the monotonic clock.
    failures: tuple[float, ...] = ()
    #: The beginning of a line of the core's output.
    core_rest: str = ""
    #: How lines for viewers are numbered (:class:`pgnode.supervisor.core.log_sender.Counted`).
    log_counted: Mapping[str, Any] = field(default_factory=dict)
    #: The number of the last revision of a snapshot.
    revision: int = 0
    #: The last lines of the log (:meth:`pgnode.supervisor.host.recent_lines.RecentLines.left`).
    log_lines: Mapping[str, Any] = field(default_factory=dict)

    def process(self, name: str) -> InheritedProcess | None:
        """Return the process of this name."""
        return next((one for one in self.processes if one.name == name), None)

    @property
    def pids(self) -> frozenset[int]:
        """The pids of the processes."""
        return frozenset(one.pid for one in self.processes)

    @property
    def descriptors(self) -> list[int]:
        """Every descriptor that goes on."""
        processes = [number for one in self.processes for number in (one.output, one.channel)]
        return sorted({number for number in (self.lock, *self.sockets.values(), *processes) if number >= 0})


#: What a supervisor has from nobody.
NOTHING: Final = Inheritance()


def encode(inheritance: Inheritance) -> bytes:
    """Write it as JSON."""
    return json.dumps(asdict(inheritance)).encode()


def decode(data: bytes) -> Inheritance:
    """Read what :func:`encode` made, also of another version.

    Args:
        data: The document.

    Returns:
        What it says; what this version does not know is left out.

    Raises:
        ValueError: It is something else.
    """
    try:
        found = json.loads(data)
        known = _known(Inheritance, found)
        processes = [_known(InheritedProcess, one) for one in known.pop("processes", [])]
        return replace(
            Inheritance(**known),
            processes=tuple(InheritedProcess(**{**one, "command": tuple(one["command"])}) for one in processes),
            failures=tuple(map(float, known.get("failures", ()))),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no inheritance: {error}") from None


def _known(what: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in what.__dataclass_fields__}


def leave(inheritance: Inheritance) -> Mapping[str, str]:
    """Let the next program of this process have it all.

    Args:
        inheritance: What is left to it.

    Returns:
        The variables that the next program needs.

    Raises:
        OSError: There is neither memory nor a folder for the document, or a descriptor is not open.
    """
    data = encode(inheritance)
    try:
        document = os.memfd_create("pgnode-inheritance")
    except (AttributeError, OSError):
        # Where the call is forbidden: a file without a name.
        with tempfile.TemporaryFile() as file:
            document = os.dup(file.fileno())
    os.write(document, data)
    for number in (*inheritance.descriptors, document):
        os.set_inheritable(number, True)
    return {VARIABLE: str(document)}


def take(environment: MutableMapping[str, str]) -> Inheritance | None:
    """Take what the program before left; children of this one get none of it.

    Args:
        environment: This process's environment; the variable is taken out of it.

    Returns:
        What was left; None where this is no restart in place, or where nothing can be read.
    """
    number = environment.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        with os.fdopen(int(number), "rb") as document:
            document.seek(0)
            inheritance = decode(document.read())
    except (OSError, ValueError):
        return None
    for descriptor in inheritance.descriptors:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    return inheritance


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that nobody wants."""
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.close(number)
