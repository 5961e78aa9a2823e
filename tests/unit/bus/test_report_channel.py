"""Reports over a real bus."""

from __future__ import annotations

from pgnode.bus.connection import connect
from pgnode.bus.keys import REPORTS_TTL_SECONDS, Keys
from pgnode.bus.report_channel import ReportWriter, forget_reports, read_reports
from tests.support.valkey import TestValkey

KEYS = Keys("test")


async def test_the_last_report_of_each_worker_is_there_until_it_is_forgotten(valkey: TestValkey) -> None:
    redis = connect(valkey.url)
    writers = [ReportWriter(valkey.url, KEYS, name) for name in ("a", "b")]
    try:
        assert await read_reports(redis, KEYS) == {}
        for number, writer in enumerate((writers[0], writers[1], writers[0])):
            await writer.write(b"%d" % number)
        assert await read_reports(redis, KEYS) == {"a": b"2", "b": b"1"}
        assert 0 < await redis.ttl(KEYS.reports) <= REPORTS_TTL_SECONDS
        await forget_reports(redis, KEYS, ["a"])
        assert await read_reports(redis, KEYS) == {"b": b"1"}
        assert repr(writers[0]) == "ReportWriter(a)"
    finally:
        for writer in writers:
            writer.close()
        await redis.aclose()
