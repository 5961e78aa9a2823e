"""Numbers as people read them, and words that several commands say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from rich.filesize import decimal

from pgnode.os_support.log_text import printable

#: What stands where traffic of inbounds would be shown.
NOT_COUNTED: Final = "not counted by this core: INBOUND_STATS=on has the next one count them"

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(seconds: float) -> str:
    """Return a duration as 3 s, 4 min 10 s, 2 h 5 min, or 3 d 4 h."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s"


def size(number: int) -> str:
    """Return a number of bytes as 4.2 MB."""
    return decimal(number)


def count(number: int, what: str) -> str:
    """Return a number with its noun: 1 time, 2 times."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def seconds_of(text: str) -> int | None:
    """Read a time such as 30s, 10m, 2h or 1d.

    Args:
        text: What somebody wrote.

    Returns:
        The time in seconds; None where it is none.
    """
    found = re.fullmatch(r"(\d{1,7})([smhd])", text.strip(), re.ASCII)
    return int(found[1]) * _UNITS[found[2]] if found is not None else None


def open_connections(by_inbound: Mapping[str, int], shown: int = 4) -> str:
    """Say how many connections are open, and through which inbounds most of them."""
    most = sorted(by_inbound.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{printable(inbound)} {number:,}" for inbound, number in most[:shown] if number)
    more = sum(number > 0 for _, number in most[shown:])
    total = f"{count(sum(by_inbound.values()), 'connection')} over TCP"
    return total + (f": {named}" if named else "") + (f" and {count(more, 'more inbound')}" if more else "")
