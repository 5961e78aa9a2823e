"""Fixtures of the routing room."""

from __future__ import annotations

import pytest

from tests.unit.supervisor.routing.stage import Stage


@pytest.fixture
async def stage() -> Stage:
    return Stage()
