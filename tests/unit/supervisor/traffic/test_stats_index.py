"""The encoded statistics of a kind: blocks are what the library would have made."""

from __future__ import annotations

from pgnode.bus.indexed import IndexedBlock, index, name_hash
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.stats_index import EncodedStats
from pgnode.wire import service_pb2 as pb


def up(name: str) -> str:
    return f"user>>>{name}>>>traffic>>>uplink"


def shown(encoded: EncodedStats) -> dict[str, int]:
    while not encoded.encode(3):
        pass
    stats = pb.StatResponse.FromString(bytes(IndexedBlock(encoded.block()()).body)).stats
    return {stat.name: stat.value for stat in stats}


def test_what_was_handed_out_shows_as_nothing_owed() -> None:
    ledger = Ledger()
    encoded = EncodedStats("user", ledger)
    encoded.touch(ledger.read("1", [(up(f"u{number}"), 10 + number) for number in range(8)]))
    assert shown(encoded) == {f"u{number}": 10 + number for number in range(8)}
    lent = [counter for counter, _ in ledger.lend("one", encoded.take_owing(5))]
    encoded.lent(lent)
    encoded.drop("u1")  # dropped while its part waits to be made
    assert shown(encoded) == {f"u{number}": 0 if number < 5 else 10 + number for number in range(8) if number != 1}
    assert encoded.take_owing(9) == [up(f"u{number}") for number in range(5, 8)]
    assert encoded.take_owing(9) == []


def test_what_is_owed_again_is_to_be_had_again() -> None:
    ledger = Ledger()
    encoded = EncodedStats("user", ledger)
    encoded.touch(ledger.read("1", [(up("a"), 1), (up("b"), 2)]))
    assert ledger.lend("one", encoded.take_owing(9)) == [(up("a"), 1), (up("b"), 2)]
    encoded.touch(counter for counter, _ in ledger.settle("one", delivered=False))
    assert ledger.lend("two", encoded.take_owing(9)) == [(up("a"), 1), (up("b"), 2)]


def test_counters_of_another_kind_or_of_none_are_left_out() -> None:
    ledger = Ledger()
    encoded = EncodedStats("user", ledger)
    encoded.touch(["inbound>>>a>>>traffic>>>uplink", "user>>>a", "user>>>a>>>traffic", "", up("a")])
    assert encoded.names() == ["a"]
    # What is known keeps its object: a name is long.
    assert encoded.take_owing(9) == [up("a")]
    encoded.touch(["inbound>>>a>>>traffic>>>uplink", "usex>>>a>>>traffic>>>uplink", "".join(up("a"))])
    assert encoded.counters_of("a") == (up("a"),)
    [owed] = encoded.take_owing(9)
    assert owed is encoded.counters_of("a")[0]


def test_what_moves_again_shows_that() -> None:
    ledger = Ledger()
    encoded = EncodedStats("user", ledger)
    for value in (1, 5):
        encoded.touch(ledger.read("1", [(up("a"), value), (up("b"), 1)]))
        assert shown(encoded) == {"a": value, "b": 1}


def test_an_index_is_made_again_only_for_other_names() -> None:
    ledger = Ledger()
    encoded = EncodedStats("user", ledger)
    encoded.touch(ledger.read("1", [(up("a"), 1)]))
    older = encoded.block()
    encoded.touch(ledger.read("1", [(up("b"), 2)]))
    older()  # a thread that is late
    assert shown(encoded) == {"a": 1, "b": 2}
    block = IndexedBlock(encoded.block()())
    assert pb.StatResponse.FromString(block.get("B") or b"").stats[0].value == 2


def test_an_index_of_many_names_is_sorted_as_a_whole() -> None:
    hashes = [name_hash(str(number)) for number in range(25_001)]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    made = memoryview(index(hashes))
    assert made[: 8 * len(hashes)].cast("Q").tolist() == sorted(hashes)
    assert made[8 * len(hashes) :].cast("I").tolist() == order


def test_dropped_names_leave_room_and_their_slots_are_closed_in_the_end() -> None:
    ledger = Ledger()
    encoded = EncodedStats("user", ledger)
    names = [f"u{number}" for number in range(10)]
    encoded.touch(ledger.read("1", [(up(name), 1) for name in names]))
    shown(encoded)
    for name in [*names[:4], "nobody"]:
        encoded.drop(name)
    assert len(encoded) == 6
    assert "6 names" in repr(encoded)
    assert sorted(encoded.names()) == names[4:]
    encoded.touch([up("u9"), "user>>>x>>>online", "inbound>>>a>>>traffic>>>uplink"])
    for name in names[4:7]:
        encoded.drop(name)
    assert shown(encoded) == {"u7": 1, "u8": 1, "u9": 1}
    assert encoded.counters_of("U8") == (up("u8"),)
    assert encoded.counters_of("u1") == ()
