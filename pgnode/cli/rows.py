"""Lines of the screen, and how they are to be shown. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Tone(enum.Enum):
    """How something is to be shown."""

    PLAIN = enum.auto()
    GOOD = enum.auto()
    WARN = enum.auto()
    BAD = enum.auto()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the screen; one without a label goes on with the one before."""

    label: str
    text: str
    tone: Tone = Tone.PLAIN
