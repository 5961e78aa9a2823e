"""Rows of the tables ``user_set`` and ``user_log``: users packed together, some thousand to a row. Pure.

A row of a table for each of 100,000 users takes a third of a second to write; packed together they take a third of that. Of a few
users who changed each row would be on a page of its own.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, islice, pairwise
from typing import Final

#: Users in one row: more than a megabyte in all, which the C library gives back as soon as it is written.
ROW_USERS: Final = 8192

#: Bytes before the texts of a row: how many users it has. Their lengths follow: characters of the keys, bytes of the messages.
_COUNT_BYTES: Final = 4
_LENGTHS: Final = "I"
_LENGTH_BYTES: Final = array(_LENGTHS).itemsize


def pack(users: Mapping[str, bytes], row_users: int = ROW_USERS) -> Iterator[bytes]:
    """Pack users.

    Args:
        users: Key -> ``User`` message.
        row_users: Users in one row, at most.

    Yields:
        The rows.
    """
    left = iter(users.items())
    while row := list(islice(left, row_users)):
        keys = "".join([key for key, _ in row]).encode()
        lengths = array(_LENGTHS, [len(key) for key, _ in row])
        lengths.extend([len(message) for _, message in row])
        lengths.append(len(keys))
        if sys.byteorder != "little":
            lengths.byteswap()
        yield b"".join(
            (len(row).to_bytes(_COUNT_BYTES, "little"), lengths.tobytes(), keys, *[message for _, message in row])
        )


def unpack(rows: Iterable[bytes]) -> dict[str, bytes]:
    """Read packed rows.

    Args:
        rows: What :func:`pack` made.

    Returns:
        Key -> ``User`` message, in the order in which they were packed.

    Raises:
        ValueError: One of the rows is damaged.
    """
    found: dict[str, bytes] = {}
    for row in rows:
        count = int.from_bytes(row[:_COUNT_BYTES], "little")
        begin = _COUNT_BYTES + (2 * count + 1) * _LENGTH_BYTES
        if len(row) < begin:
            raise ValueError("a row of the set of users is cut short")
        lengths = array(_LENGTHS, row[_COUNT_BYTES:begin])
        if sys.byteorder != "little":
            lengths.byteswap()
        keys_end = begin + lengths[-1]
        keys = row[begin:keys_end].decode()
        in_keys = [*accumulate(lengths[:count], initial=0)]
        in_row = [*accumulate(lengths[count:-1], initial=keys_end)]
        if in_keys[-1] != len(keys) or in_row[-1] != len(row):
            raise ValueError("a row of the set of users is damaged")
        found.update((keys[a:b], row[c:d]) for (a, b), (c, d) in zip(pairwise(in_keys), pairwise(in_row), strict=True))
    return found
