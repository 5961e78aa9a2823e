"""The caller's deadline bounds what is begun for it."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.api.service import deadline
from pgnode.errors import DeadlineExceededError


def test_without_a_deadline_the_limit_holds() -> None:
    assert deadline.remaining(5.0) == 5.0


async def test_each_call_has_a_deadline_of_its_own() -> None:
    async def call() -> None:
        deadline.set_caller_timeout(100.0)
        assert 90.0 < deadline.remaining(500.0) <= 100.0
        assert deadline.remaining(0.5) == 0.5

    await asyncio.create_task(call())
    assert deadline.remaining(500.0) == 500.0


async def test_nothing_is_begun_for_a_caller_that_has_given_up() -> None:
    async def call() -> None:
        deadline.set_caller_timeout(0.0)
        with pytest.raises(DeadlineExceededError, match="nothing was begun"):
            deadline.remaining(5.0)

    await asyncio.create_task(call())
