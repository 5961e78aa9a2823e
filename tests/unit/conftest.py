"""For all unit tests: nobody changes how the next one logs; and a fresh Valkey for each test of what talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.kept_logging import kept_logging
from tests.support.valkey import TestValkey, running_valkey


@pytest.fixture(autouse=True)
def _kept_logging() -> Iterator[None]:
    with kept_logging():
        yield


@pytest.fixture
async def valkey() -> AsyncIterator[TestValkey]:
    """The server; it ends with the test."""
    async with running_valkey() as server:
        yield server
