"""Which lines of the log stream are news."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.log_batches import LogBatch
from pgnode.worker.log_order import LogOrder


def taken(order: LogOrder, *batches: LogBatch) -> list[str]:
    return [line for batch in batches for data in order.take(batch) for line in data.decode().split("\n")]


#: How many lines an entry has, whether it is lost, and from how many lines before it on it is sent again.
ENTRIES = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=15)


@given(ENTRIES)
def test_every_line_comes_once_or_is_counted_as_lost(entries: list[tuple[int, bool, int]]) -> None:
    order, number, expected, lost = LogOrder(), 1, [], None
    found: list[str] = []
    for count, is_lost, again in entries:
        first, number = number, number + count
        if is_lost:
            lost = None if lost is None else lost + count
            continue
        if lost:
            expected.append(f"[{lost} lines lost: the bus did not take them, or this worker was too slow]")
        # What is sent again was sent before.
        begun = first if lost is None or lost else max(1, first - again)
        lost = 0
        found += taken(order, LogBatch("one", begun, "\n".join(map(str, range(begun, number))).encode()))
        expected += [str(line) for line in range(first, number)]
    # What was lost before the first entry is nobody's.
    assert found == expected


def test_where_a_viewer_joins_the_lines_are_not_for_others() -> None:
    order = LogOrder()
    assert taken(order, LogBatch("one", 5, b"replay", "token"), LogBatch("one", 5, b"5\n6")) == ["5", "6"]
    assert taken(order, LogBatch("one", 7, b"replay", "other"), LogBatch("one", 7, b"7")) == ["7"]
    [missing] = taken(order, LogBatch("one", 10, b"", "third"))
    assert missing.startswith("[2 lines lost: ")
    assert taken(order, LogBatch("one", 6, b"6\n7", "")) == []
    assert repr(order) == "LogOrder(one 10)"


def test_another_supervisor_is_told() -> None:
    order = LogOrder()
    assert taken(order, LogBatch("one", 7, b"a"), LogBatch("two", 1, b"b")) == [
        *("a", "[another supervisor goes on: lines of that moment may be missing]", "b")
    ]
