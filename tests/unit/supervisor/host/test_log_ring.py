"""The last lines of the log, as bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.host.log_ring import BLOCK_BYTES, SHARED_SECONDS, Block, LogRing

#: Lines that come together, seconds since those before, and whether they are the core's.
PUTS = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from([0.0, SHARED_SECONDS / 3, 5.0]), st.booleans()), max_size=25
)


def put(ring: LogRing, text: str, at: float = 1.0, *, of_core: bool = True) -> None:
    ring.put(text.encode(), at, text.count("\n") + 1, of_core=of_core)


def all_lines(ring: LogRing) -> list[tuple[int, bytes, bool]]:
    return [
        (number, line, block.of_core)
        for block in ring.oldest_first()
        for number, line in enumerate(block.lines(), block.number)
    ]


@given(PUTS, st.integers(1, 60))
def test_the_last_lines_are_kept_each_under_its_number(puts: list[tuple[int, float, bool]], most: int) -> None:
    ring, at = LogRing(most), 0.0
    put_in: list[tuple[int, bytes, bool]] = []
    for count, later, of_core in puts:
        at += later
        lines = [b"line %d" % (len(put_in) + number) for number in range(count)]
        ring.put(b"\n".join(lines), at, count, of_core=of_core)
        put_in += [(len(put_in) + number + 1, line, of_core) for number, line in enumerate(lines)]
    kept = put_in[-most:]
    assert all_lines(ring) == kept
    assert [block.number for block in ring.newest_first()] == [block.number for block in ring.oldest_first()][::-1]
    assert len(ring) == len(kept)
    assert ring.next_number == len(put_in) + 1
    for count in (0, 1, 7, most):
        assert ring.last(count) == [line for _, line, _ in kept[len(kept) - min(count, len(kept)) :]]
    for block in ring.oldest_first():
        assert block.count == len(block.lines())
        assert block.end == block.number + block.count


@given(PUTS, st.integers(1, 400))
def test_no_more_bytes_are_kept_than_there_is_room_for(puts: list[tuple[int, float, bool]], most: int) -> None:
    ring, number = LogRing(10_000, most), 0
    for count, later, of_core in puts:
        ring.put(b"\n".join([b"line"] * count), later, count, of_core=of_core)
        number += count
        found = list(ring.oldest_first())
        assert sum(len(block.raw) for block in found) <= most
        assert len(ring) == sum(block.count for block in found)
        assert not found or found[-1].end == number + 1, "the newest are kept"


def test_it_says_how_far_back_it_reaches() -> None:
    assert LogRing(3).since is None
    ring = LogRing(3)
    put(ring, "a\nb", 5.0)
    put(ring, "c\nd", 9.0)
    assert ring.since == 5.0
    put(ring, "e\nf", 12.0)
    assert (ring.since, ring.last(9)) == (9.0, [b"d", b"e", b"f"])
    assert repr(ring) == "LogRing(3 lines, 4 bytes)"


def test_lines_of_a_moment_share_a_block_and_others_do_not() -> None:
    ring = LogRing(100)
    put(ring, "a", 1.0)
    put(ring, "b", 1.1)
    put(ring, "own", 1.1, of_core=False)
    put(ring, "c", 1.1)
    assert ring.take_number() == 5
    put(ring, "d", 1.1)
    put(ring, "e", 1.1 + 2 * SHARED_SECONDS)
    ring.skip_to(20)
    ring.skip_to(10)
    put(ring, "f", 1.1 + 2 * SHARED_SECONDS)
    assert [(block.number, block.raw) for block in ring.oldest_first()] == [
        *((1, b"a\nb"), (3, b"own"), (4, b"c"), (6, b"d"), (7, b"e"), (20, b"f"))
    ]


def test_a_large_read_is_kept_in_several_blocks() -> None:
    ring = LogRing(100_000)
    line = "x" * 99
    put(ring, "\n".join([line] * 2_000))
    assert [len(block.raw) <= BLOCK_BYTES for block in ring.oldest_first()] == [True] * 4
    assert len(ring) == 2_000


def test_a_block_is_cut_from_its_beginning() -> None:
    block = Block(7, 3, 1.0, True, b"a\nb\nc")
    assert block.without(2) == Block(9, 1, 1.0, True, b"c")
