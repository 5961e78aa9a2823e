"""A supervisor's parts, put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.settings import load
from pgnode.settings.handover import Handover
from pgnode.supervisor.composition import compose
from pgnode.supervisor.tasks import GRPC_WORKERS, GUNICORN, METRICS, ORPHANS, OWNERSHIP, SERVICE, TASKS, VALKEY

#: No worker is started here.
NO_HANDOVER = Handover(0)


async def test_every_task_has_work(tmp_path: Path) -> None:
    parts = compose(load(state_dir=str(tmp_path), service_protocol="both", metrics_port=62059), NO_HANDOVER)
    assert set(parts.tasks) == set(TASKS) - {ORPHANS, OWNERSHIP, SERVICE}
    assert parts.processes.valkey is not None
    assert not any(tmp_path.iterdir()), "nothing is touched"  # noqa: ASYNC240


async def test_what_is_not_there_has_no_task(tmp_path: Path) -> None:
    parts = compose(
        load(state_dir=str(tmp_path), service_protocol="rest", redis_url="redis://127.0.0.1:9/0"), NO_HANDOVER
    )
    assert set(TASKS) - set(parts.tasks) == {GRPC_WORKERS, METRICS, ORPHANS, VALKEY, SERVICE}
    assert parts.processes.valkey is None


async def test_without_workers_of_its_own_nobody_keeps_any(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), service_protocol="none", redis_url="redis://127.0.0.1:9/0")
    parts = compose(settings, NO_HANDOVER)
    assert {GUNICORN, GRPC_WORKERS}.isdisjoint(parts.tasks)
    assert not parts.processes.api.pids


async def test_statistics_are_not_handed_out_while_nothing_runs(tmp_path: Path) -> None:
    parts = compose(load(state_dir=str(tmp_path)), NO_HANDOVER)
    assert await parts.traffic.collector.poll(parts.core.api, parts.core.run_id) == "no core runs"


@pytest.mark.parametrize("name", ["bus", "traffic", "processes"])
async def test_parts_cannot_be_exchanged(tmp_path: Path, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(compose(load(state_dir=str(tmp_path)), NO_HANDOVER), name, None)
