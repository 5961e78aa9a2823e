"""The encoded statistics of a kind: answers and blocks are what the library would have made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.indexed import IndexedBlock, index, name_hash
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.stats_index import EncodedStats, counters_in, stats_answer
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import Counter, counter_name

NAMES = st.text(min_size=1, max_size=200).filter(lambda name: ">>>" not in name and not name.endswith(">"))
PART = st.sampled_from(["traffic", "uplink", "x" * 30, "ü", ""])


def up(name: str) -> str:
    return f"user>>>{name}>>>traffic>>>uplink"


def shown(book: EncodedStats) -> dict[str, int]:
    while not book.encode(3):
        pass
    stats = pb.StatResponse.FromString(IndexedBlock(book.block()()).body).stats
    return {stat.name: stat.value for stat in stats}


@given(st.lists(st.tuples(NAMES, PART, PART, st.integers(1, 2**63 - 1))))
def test_an_answer_is_the_message(taken: list[tuple[str, str, str, int]]) -> None:
    counters = [(counter_name(Counter("user", name, link, kind)), value) for name, link, kind, value in taken]
    expected = pb.StatResponse(
        stats=[pb.Stat(name=name, type=kind, link=link, value=value) for name, link, kind, value in taken]
    )
    answer = stats_answer(counters)
    assert pb.StatResponse.FromString(answer) == expected
    assert answer == expected.SerializeToString()
    assert counters_in("user", answer) == counters


def test_the_longest_names_that_are_encoded_by_hand() -> None:
    counters = [(f"user>>>{'n' * length}>>>traffic>>>downlink", 2**63 - 1) for length in range(60, 130)]
    assert counters_in("user", stats_answer(counters)) == counters


def test_what_is_no_statistic_is_left_out() -> None:
    assert stats_answer([("user>>>a>>>online", 5)]) == b""


def test_what_was_handed_out_shows_as_nothing_owed() -> None:
    ledger = Ledger()
    book = EncodedStats("user", ledger)
    book.touch(ledger.read("1", [(up(f"u{number}"), 10 + number) for number in range(8)]))
    assert shown(book) == {f"u{number}": 10 + number for number in range(8)}
    lent = [counter for counter, _ in ledger.lend("one", book.owing(5))]
    book.lent(lent)
    book.drop("u1")  # dropped while its part waits to be made
    assert shown(book) == {f"u{number}": 0 if number < 5 else 10 + number for number in range(8) if number != 1}
    assert book.owing(9) == [up(f"u{number}") for number in range(5, 8)]


def test_an_index_is_made_again_only_for_other_names() -> None:
    ledger = Ledger()
    book = EncodedStats("user", ledger)
    book.touch(ledger.read("1", [(up("a"), 1)]))
    older = book.block()
    book.touch(ledger.read("1", [(up("b"), 2)]))
    older()  # a thread that is late
    assert shown(book) == {"a": 1, "b": 2}
    block = IndexedBlock(book.block()())
    assert pb.StatResponse.FromString(block.get("B") or b"").stats[0].value == 2


def test_an_index_of_many_names_is_sorted_as_a_whole() -> None:
    hashes = [name_hash(str(number)) for number in range(25_001)]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    made = memoryview(index(hashes))
    assert made[: 8 * len(hashes)].cast("Q").tolist() == sorted(hashes)
    assert made[8 * len(hashes) :].cast("I").tolist() == order
