"""What each worker reports of itself: its counts since it began, and how it is now. Pure.

A report holds everything, so one that is lost costs nothing, and one that comes twice changes nothing. It is JSON, as small as
names that a reader understands allow: a worker of another version may have other names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from pgnode.metrics.instruments import Buckets

#: Between the parts of the name of a count, such as ``calls/rest/GetStats/OK``.
SEPARATOR = "/"

#: What the names of counts begin with.
CALLS = "calls"  # face, method, code
TIMES = "times"  # face, group
UNAUTHENTICATED = "unauthenticated"  # face
LIMITED = "limited"  # face
NOT_ALLOWED = "not_allowed"  # face
KEY_USES = "key"  # key
CUT_OFF = "cut_off"
FILES_EXHAUSTED = "files_exhausted"  # kind of worker
TASK_FAILURES = "task_failures"  # kind of worker
CPU_SECONDS = "cpu"  # kind of worker


@dataclass(frozen=True, slots=True)
class Report:
    """How one worker is."""

    #: Rises with every report of the worker.
    number: int
    #: "rest" or "grpc".
    kind: str
    #: What it counted since it began, by name; these never fall.
    counts: Mapping[str, float] = field(default_factory=dict)
    #: Histograms since it began, by name.
    times: Mapping[str, Buckets] = field(default_factory=dict)
    #: Calls under way, and open connections, by face.
    in_flight: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    log_viewers: int = 0
    #: Seconds since somebody with the key called; None where nobody has.
    idle_seconds: float | None = None
    pid: int = 0
    host: str = ""
    memory_bytes: int = 0
    open_files: int = 0
    max_files: int = 0
    #: The longest silence of its event loop of late.
    lag_seconds: float = 0.0
    #: The worker ends: this is its last report.
    last: bool = False
    #: Of the program, and of the bus; a worker of an earlier version names none.
    version: str = ""
    protocol: int = 1
    #: Seconds since it began.
    up_seconds: float = 0.0
    #: No supervisor is beside it (``pgnode worker``).
    alone: bool = False

    def encode(self) -> bytes:
        """Return the report as it is on the bus."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["times"] = {name: [_short(value) for value in buckets] for name, buckets in self.times.items()}
        fields["counts"] = {name: _short(value) for name, value in self.counts.items()}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Report:
        """Read what :meth:`encode` made; fields that are not known here are left out.

        Args:
            data: The report.

        Returns:
            The report.

        Raises:
            ValueError: It is none.
        """
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("a report is a JSON object")
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        try:
            report = cls(**known)
            numbers = [report.number, *report.counts.values(), *chain.from_iterable(report.times.values())]
        except (AttributeError, TypeError) as error:
            raise ValueError(str(error)) from None
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("what a report counts are numbers")
        return report


def _short(value: float) -> float:
    """Return a number in the form that takes the least room; times are good to the microsecond."""
    return int(value) if value == int(value) else round(value, 6)
