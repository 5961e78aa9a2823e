"""Workers without a supervisor beside them meet one: by the digest of its key, of another version, of another protocol."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
import pytest_asyncio

from pgnode.bus.connection import connect
from pgnode.bus.protocol import PROTOCOL, Hello
from pgnode.bus.report_channel import read_reports
from pgnode.bus.reports import Report
from pgnode.bus.snapshots import SUPERVISOR
from pgnode.testing.panel import PanelClient, PanelError
from tests.integration.worker.stage import Stage
from tests.support.far_worker import FarWorker
from tests.support.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


async def introduce(stage: Stage, hello: Hello) -> None:
    await stage.supervisor.publish({SUPERVISOR: hello.encode()})


async def status_of(panel: PanelClient) -> tuple[int, str]:
    try:
        await panel.info()
    except PanelError as error:
        return error.status, error.text
    return 200, ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(whole_stage: Stage) -> AsyncIterator[FarWorker]:
    """One worker, which has no key."""
    await introduce(whole_stage, Hello(key=digest(whole_stage.api_key)))
    settings = whole_stage.settings
    async with FarWorker(
        "rest", redis_url=settings.bus_url, cert_file=settings.cert_file, key_file=settings.cert_key_file
    ) as running:
        yield running


async def test_the_key_is_the_one_of_which_the_supervisor_tells(stage: Stage, far: FarWorker) -> None:
    new = str(uuid.uuid4())
    async with far.panel(api_key=stage.api_key) as old_panel, far.panel(api_key=new) as new_panel:

        async def both() -> tuple[int, int]:
            (old, _), (latest, _) = await asyncio.gather(status_of(old_panel), status_of(new_panel))
            return old, latest

        assert await both() == (200, 401)
        # A rotation, as it is told: the previous key for as long as is said, whatever the clocks say.
        await introduce(stage, Hello(key=digest(new), previous=digest(stage.api_key), previous_ms=3_600_000))
        await eventually(lambda: _is(both, (200, 200)), "both are valid")
        await introduce(stage, Hello(key=digest(new), previous=digest(stage.api_key), previous_ms=1))
        await eventually(lambda: _is(both, (401, 200)), "the previous one has ended")
        await introduce(stage, Hello(key=digest(stage.api_key)))
        await eventually(lambda: _is(both, (200, 401)), "it is as before")


async def test_another_protocol_is_refused_with_a_sentence_until_both_agree(stage: Stage, far: FarWorker) -> None:
    async with far.panel(api_key=stage.api_key) as panel:
        assert (await status_of(panel))[0] == 200
        await introduce(stage, Hello(PROTOCOL + 1, "9.9.9", key=digest(stage.api_key)))

        async def refused() -> bool:
            status, text = await status_of(panel)
            return status == 503 and f"its node (9.9.9) speaks {PROTOCOL + 1}: update the worker" in text

        await eventually(refused, "it says why")
        await eventually(lambda: "this worker serves nobody" in far.output_text, "and says so in its log")
        assert far.returncode is None
        await introduce(stage, Hello(version="9.9.9", key=digest(stage.api_key)))
        await eventually(lambda: _serves(panel), "it serves a node of another version")
        await eventually(lambda: "this worker serves again" in far.output_text, "and says so")


async def test_it_says_that_it_is_there(stage: Stage, far: FarWorker) -> None:
    redis = connect(stage.settings.bus_url, connections=1)

    async def there() -> list[Report]:
        found = [Report.decode(data) for data in (await read_reports(redis, stage.supervisor.keys)).values()]
        return [report for report in found if report.alone and report.up_seconds]

    try:
        [report] = await eventually(there, "it reports")
        assert (report.kind, report.protocol, report.alone) == ("rest", PROTOCOL, True)
        assert report.version
    finally:
        await redis.aclose()


async def _is(look: object, wanted: tuple[int, int]) -> bool:
    return await look() == wanted  # type: ignore[operator, no-any-return]


async def _serves(panel: PanelClient) -> bool:
    return (await status_of(panel))[0] == 200
