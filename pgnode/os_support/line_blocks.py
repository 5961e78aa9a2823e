"""Blocks of lines: many lines in one piece of bytes, with a line feed between two. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def pieces(block: bytes, most: int) -> Iterator[bytes]:
    """Cut a block into smaller ones.

    Args:
        block: The lines.
        most: Bytes of a piece, unless it is a single line.

    Yields:
        The pieces, in order; with a line feed between two they are what was given.
    """
    at = 0
    while len(block) - at > most:
        end = block.rfind(b"\n", at, at + most + 1)
        if end < 0:
            end = block.find(b"\n", at)
            if end < 0:
                break
        yield block[at:end]
        at = end + 1
    yield block[at:] if at else block


def count_lines(block: bytes) -> int:
    """Return how many lines a block has; nothing is no line."""
    return block.count(b"\n") + 1 if block else 0


def without_first(block: bytes, count: int) -> bytes:
    """Leave out the first lines of a block.

    Args:
        block: The lines.
        count: How many of them go.

    Returns:
        The others; nothing where there are none.
    """
    if not count:
        return block
    parts = block.split(b"\n", count)
    return parts[count] if len(parts) > count else b""
