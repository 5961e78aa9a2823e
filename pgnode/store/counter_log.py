"""Rows of the table ``counter_log``: counters that changed together, packed. Pure.

A user's counters lie anywhere in the table of counters: writing the 2,000 that move in one reading there would rewrite most of
its pages each time. Packed together they are some 20 bytes each, and go into the table rarely.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from pgnode.store.rows import LedgerRow

#: Fast, and repeated parts of names are found all the same.
_LEVEL = 1

#: Counters in one row at most. A row is read in one go, and nothing else of the process gets a turn meanwhile: some 10 ms.
ROW_COUNTERS = 5_000

#: What JSON writes otherwise than it is.
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\U0010ffff]').search


def pack_all(rows: Mapping[str, LedgerRow | None], most: int = ROW_COUNTERS) -> Iterator[bytes]:
    """Pack changed counters into as many rows as it takes.

    Args:
        rows: Name -> row; None for one that is gone.
        most: So many counters are in one row of the log.

    Yields:
        What is to be appended to the log.
    """
    if len(rows) <= most:
        yield pack(rows)
        return
    left = iter(rows.items())
    while piece := dict(islice(left, most)):
        yield pack(piece)


def pack(rows: Mapping[str, LedgerRow | None]) -> bytes:
    """Pack changed counters; None for one that is gone."""
    if _ESCAPED("".join(rows)) is None:
        # As nearly always. By hand, since 200,000 rows take the library twice as long, and somebody waits.
        lines = [
            f'["{name}",{row[0]},{row[1]},{row[2]},{row[3]}]' if row is not None else f'["{name}"]'
            for name, row in rows.items()
        ]
        text = f"[{','.join(lines)}]"
    else:
        text = json.dumps(
            [[name, *row] if row is not None else [name] for name, row in rows.items()], separators=(",", ":")
        )
    return zlib.compress(text.encode(), _LEVEL)


def unpack(packed: Iterable[bytes]) -> dict[str, LedgerRow | None]:
    """Read packed rows, oldest first; the last row of a name wins.

    Args:
        packed: What :func:`pack` made.

    Returns:
        Name -> row, None for one that is gone.

    Raises:
        ValueError: One of them is damaged.
    """
    found: dict[str, LedgerRow | None] = {}
    for data in packed:
        try:
            for name, *numbers in json.loads(zlib.decompress(data)):
                found[name] = LedgerRow(*numbers) if numbers else None
        except (zlib.error, TypeError) as error:
            raise ValueError(f"a row of the log of counters is damaged: {error}") from None
    return found
