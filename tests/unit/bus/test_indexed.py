"""Blocks of many small messages with an index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.api.rest.response_chunks import CHUNK_BYTES
from pgnode.bus.indexed import EMPTY, LARGE_BYTES, IndexedBlock, name_hash, pack


@given(st.dictionaries(st.text().map(str.lower), st.binary(max_size=40), max_size=60))
def test_everything_is_found_and_nothing_else(items: dict[str, bytes]) -> None:
    block = IndexedBlock(pack((name_hash(name), body) for name, body in items.items()))
    assert len(block) == len(items)
    assert block.body == b"".join(items.values())
    for name, body in items.items():
        assert block.get(name) == body
        assert block.get(name.upper()) in (body, None if name.upper().lower() != name else body)
    assert block.get("nobody has this name, surely") is None


def test_the_empty_block() -> None:
    block = IndexedBlock(EMPTY)
    assert block.get("a") is None
    assert block.body == b""


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="not an indexed block"):
        IndexedBlock(b"xxxxxxxxxxxx")


@given(st.dictionaries(st.text().map(str.lower), st.binary(max_size=40), max_size=20), st.booleans())
def test_a_block_in_shared_memory_is_the_same(items: dict[str, bytes], large: bool) -> None:
    if large:
        items[" large"] = bytes(LARGE_BYTES)
    block = IndexedBlock(memoryview(pack((name_hash(name), body) for name, body in items.items())))
    assert isinstance(block.body, memoryview if len(block.body) > LARGE_BYTES else bytes)
    assert block.body == b"".join(items.values())
    for name, body in items.items():
        found = block.get(name)
        assert (found, type(found)) == (body, bytes)


def test_what_is_answered_in_one_piece_is_bytes() -> None:
    assert LARGE_BYTES >= CHUNK_BYTES
