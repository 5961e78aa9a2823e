"""What the core prints, cut into blocks that are safe to show: as if each line were looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.log_text import printable_bytes
from pgnode.supervisor.core.log_blocks import LINE_MAX_BYTES, LineCutter, clean
from pgnode.xray.config.log_section import without_ids

ID = b"user id: 6e0a2249-a10a-5672-b647-544f9bb45868"
LONG = b"x" * (LINE_MAX_BYTES + 10)
PARTS = [b"a", b"\n", b"\r\n", b"\x1b[2J", "\u202e".encode(), "ü".encode(), b"\xff", b"\t", ID, b"[Info]", LONG, b"  "]
BLOCKS = st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join)


def one_by_one(block: bytes) -> list[bytes]:
    lines = [without_ids(printable_bytes(raw[:LINE_MAX_BYTES].rstrip(b"\r"))) for raw in block.split(b"\n")]
    return [line for line in lines if line]


@given(BLOCKS)
def test_a_block_is_cleaned_as_its_lines_would_be(block: bytes) -> None:
    lines = one_by_one(block)
    assert clean(block) == (b"\n".join(lines), len(lines))


def test_what_is_cleaned() -> None:
    assert clean(b"plain\nlines") == (b"plain\nlines", 2)
    assert clean(b"\n\na\x1b[2J\r\n" + ID) == (b"a\\x1b[2J\nuser id: (hidden)", 2)
    assert clean(b"\n") == (b"", 0)
    assert clean(b"ok\n" + LONG + b"\nok") == (b"ok\n" + LONG[:LINE_MAX_BYTES] + b"\nok", 3)
    whole = b"\n".join([LONG[:LINE_MAX_BYTES]] * 3)
    assert clean(whole) == (whole, 3)


@given(st.lists(st.binary(max_size=10).map(lambda part: part.replace(b"\r", b"\n")), max_size=20))
def test_a_stream_is_cut_behind_ends_of_lines_alone(reads: list[bytes]) -> None:
    cutter = LineCutter(b"first ")
    found = [block for block in map(cutter.feed, reads) if block is not None]
    assert b"\n".join([*found, cutter.rest]) == b"first " + b"".join(reads)
    assert b"\n" not in cutter.rest


def test_a_line_that_never_ends_is_none() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"x" * LINE_MAX_BYTES) is None
    assert cutter.feed(b"y") == b"x" * LINE_MAX_BYTES + b"y"
    assert cutter.feed(b"whole\n" + LONG) == b"whole\n" + LONG
    assert (cutter.rest, repr(cutter)) == (b"", "LineCutter(0 bytes of a line)")
