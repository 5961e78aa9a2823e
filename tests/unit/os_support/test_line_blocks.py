"""Blocks of lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.line_blocks import count_lines, pieces, without_first

LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=30)


@given(LINES, st.integers(min_value=1, max_value=40))
def test_pieces_are_the_whole_and_none_is_larger_than_it_has_to_be(lines: list[bytes], most: int) -> None:
    block = b"\n".join(lines)
    found = list(pieces(block, most))
    assert b"\n".join(found) == block
    assert all(len(piece) <= most or b"\n" not in piece for piece in found)


@given(LINES, st.integers(min_value=0, max_value=40))
def test_lines_are_counted_and_left_out(lines: list[bytes], count: int) -> None:
    block = b"\n".join([b"x" + line for line in lines])
    assert count_lines(block) == len(lines)
    assert count_lines(b"") == 0
    assert without_first(block, count) == b"\n".join([b"x" + line for line in lines[count:]])
