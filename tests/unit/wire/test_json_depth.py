"""Nested JSON is measured without following it down."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.wire.json_depth import DEPTH_MAX, is_too_deep


def nested(levels: int, *, lists: bool) -> Any:
    found: Any = "end"
    for _ in range(levels):
        found = [1, found] if lists else {"a": 1, "b": found}
    return found


@pytest.mark.parametrize("lists", [True, False])
def test_the_limit_is_what_is_allowed(lists: bool) -> None:
    assert not is_too_deep(nested(DEPTH_MAX, lists=lists))
    assert is_too_deep(nested(DEPTH_MAX + 1, lists=lists))
    assert is_too_deep(nested(100_000, lists=lists))


@pytest.mark.parametrize("text", ["1", '"x"', "null", "[]", "{}", "[[], {}, 1]"])
def test_what_is_flat_is_not(text: str) -> None:
    assert not is_too_deep(json.loads(text), 2)
