"""Answers with statistics are what the library would have made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.lent_bytes import counters_of
from pgnode.store.rows import LoanPart
from pgnode.supervisor.traffic.response_encoding import encode_stats
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import Counter, counter_name

NAMES = st.text(min_size=1, max_size=200).filter(lambda name: ">>>" not in name and not name.endswith(">"))
PART = st.sampled_from(["traffic", "uplink", "x" * 30, "ü", ""])


@given(st.lists(st.tuples(NAMES, PART, PART, st.integers(1, 2**63 - 1))))
def test_an_answer_is_the_message(taken: list[tuple[str, str, str, int]]) -> None:
    counters = [(counter_name(Counter("user", name, link, kind)), value) for name, link, kind, value in taken]
    expected = pb.StatResponse(
        stats=[pb.Stat(name=name, type=kind, link=link, value=value) for name, link, kind, value in taken]
    )
    answer = encode_stats(counters)
    assert pb.StatResponse.FromString(answer) == expected
    assert answer == expected.SerializeToString()
    assert counters_of(LoanPart("l", "user", "w", answer)) == counters


def test_the_longest_names_that_are_encoded_by_hand() -> None:
    counters = [(f"user>>>{'n' * length}>>>traffic>>>downlink", 2**63 - 1) for length in range(60, 130)]
    assert counters_of(LoanPart("l", "user", "w", encode_stats(counters))) == counters


def test_what_is_no_statistic_is_left_out() -> None:
    assert encode_stats([("user>>>a>>>online", 5)]) == b""
