"""Blocks of many small messages with an index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.indexed import EMPTY, IndexedBlock, name_hash, pack


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
