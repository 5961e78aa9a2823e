"""A fresh Valkey for each test of what talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.valkey import TestValkey, running_valkey


@pytest.fixture
async def valkey() -> AsyncIterator[TestValkey]:
    """The server; it ends with the test."""
    async with running_valkey() as server:
        yield server
