"""Ids of the entries of a stream, ``<Unix milliseconds>-<number>``. Pure."""

from __future__ import annotations

import functools

#: Before every entry.
BEGINNING = "0-0"


def entry_order(entry_id: str) -> tuple[int, int]:
    """Return what entries of one stream are ordered by."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


@functools.lru_cache(maxsize=64)
def added_at_ms(entry_id: str) -> int:
    """Return when an entry was added, Unix milliseconds of Redis's clock."""
    return int(entry_id.partition("-")[0])
