"""One object for a core: waiting for it, and closing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from tests.unit.xray.client.builders import DEADLINE_SECONDS
from tests.unit.xray.fake_core import FakeCore


async def test_ready_when_the_core_answers(fake: FakeCore) -> None:
    async with CoreApi(fake.socket_path) as api:
        assert (await api.wait_ready(DEADLINE_SECONDS)).Uptime == 3
        assert str(fake.socket_path) in repr(api)


async def test_a_core_that_does_not_come_up(tmp_path: Path) -> None:
    async with CoreApi(tmp_path / "none.sock") as api:
        with pytest.raises(CoreApiError) as caught:
            await api.wait_ready(0.05)
        assert caught.value.kind in (ErrorKind.DEADLINE, ErrorKind.UNAVAILABLE)
