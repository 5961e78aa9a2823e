"""Numbers as people read them. Pure."""

from __future__ import annotations

from rich.filesize import decimal


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
