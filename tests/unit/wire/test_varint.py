"""Numbers and fields by hand are those of the protobuf library."""

from __future__ import annotations

import mmap

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.wrappers_pb2 import StringValue, UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from pgnode.wire import varint

NUMBERS = st.integers(0, 2**64 - 1) | st.sampled_from([2**bits + more for bits in range(7, 64, 7) for more in (-1, 0)])


@given(NUMBERS)
def test_numbers_are_those_of_the_library(value: int) -> None:
    encoded = varint.encode(value)
    assert b"\x08" + encoded == UInt64Value(value=value).SerializeToString() or value == 0
    assert varint.decode(b"x" + encoded + b"y", 1) == (value, 1 + len(encoded))


@pytest.mark.parametrize("size", [1, 127, 128, 0x3FFF, 0x4000, 0x4001, 2**21])
def test_fields_are_those_of_the_library(size: int) -> None:
    text = "x" * size
    assert varint.field(1, text.encode()) == StringValue(value=text).SerializeToString()
    assert varint.field(3, text.encode()) == Value(string_value=text).SerializeToString()
    assert varint.field(1000, b"")[:2] == varint.encode(1000 << 3 | 2)


def test_zero_is_one_byte() -> None:
    assert varint.encode(0) == b"\0"
    assert varint.decode(b"\0", 0) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9])
def test_a_number_that_is_cut_short(data: bytes) -> None:
    with pytest.raises(varint.VarintCutShortError):
        varint.decode(data, 0)


@pytest.mark.parametrize("data", [b"\xff" * 10, b"\xff" * 11, b"\xff" * 9 + b"\x02"])
def test_a_number_of_more_than_64_bits(data: bytes) -> None:
    with pytest.raises(varint.VarintError) as caught:
        varint.decode(data, 0)
    assert not isinstance(caught.value, varint.VarintCutShortError)


def test_mapped_files_are_read_as_bytes_are() -> None:
    with mmap.mmap(-1, 16) as data:
        data[3:5] = varint.encode(300)
        assert varint.decode(data, 3) == (300, 5)
