"""Packed counters: the newest row of a name wins."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.counter_log import pack, pack_all, unpack
from pgnode.store.rows import LedgerRow

ROWS = st.dictionaries(st.text(), st.none() | st.builds(LedgerRow, *[st.integers(0, 2**63)] * 4))


@given(st.lists(ROWS, max_size=4))
def test_what_is_packed_is_unpacked(logs: list[dict[str, LedgerRow | None]]) -> None:
    expected: dict[str, LedgerRow | None] = {}
    for rows in logs:
        expected |= rows
    assert unpack(map(pack, logs)) == expected


@given(ROWS, st.integers(1, 3))
def test_many_counters_are_in_several_rows(rows: dict[str, LedgerRow | None], most: int) -> None:
    packed = list(pack_all(rows, most))
    assert len(packed) == max(1, -(-len(rows) // most))
    assert unpack(packed) == rows


def test_a_counter_takes_few_bytes() -> None:
    rows = {
        f"user>>>{number}.user{number}>>>traffic>>>{direction}": LedgerRow(number**3, number**2, number**3 % 10**9, 7)
        for number in range(0, 100_000, 100)
        for direction in ("uplink", "downlink")
    }
    assert len(pack(rows)) < 30 * len(rows)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", zlib.compress(b"no JSON"), zlib.compress(b"[[1,2,3]]"), zlib.compress(b"7")]
)
def test_a_damaged_row_is_told(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors among them
        unpack([data])
