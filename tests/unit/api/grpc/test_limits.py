"""A bounded number of calls at once."""

from __future__ import annotations

import pytest

from pgnode.api.grpc.limits import ConcurrencyLimit
from pgnode.errors import TooManyCallsError


def test_slots_are_taken_and_freed_also_by_errors() -> None:
    limit = ConcurrencyLimit(2, "calls", "GRPC_MAX_CALLS")
    with limit, limit:
        assert limit.taken == 2
        with (
            pytest.raises(TooManyCallsError, match=r"too many calls: 2 are under way.* or raise GRPC_MAX_CALLS"),
            limit,
        ):
            raise AssertionError("no slot was free")
        assert repr(limit) == "2 of 2 calls"
    with pytest.raises(ValueError, match="x"), limit:
        raise ValueError("x")
    assert limit.taken == 0
