"""A core update that a killed supervisor left: finished where its core runs, given up otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.interrupted_update import InterruptedUpdate
from pgnode.xray.process.executable import ExecutableCore
from tests.unit.supervisor.maintenance.fakes import FakeCore
from tests.unit.supervisor.maintenance.test_core_store import add, begin
from tests.unit.supervisor.maintenance.test_initial_core import EverythingBroken

OLD, NEW = "1.0.0", "1.0.1"


@pytest.fixture
def cores(tmp_path: Path) -> CoreStore:
    return CoreStore(tmp_path, None, 1000)


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@pytest.fixture
def update(core: FakeCore, cores: CoreStore, tmp_path: Path) -> InterruptedUpdate:
    return InterruptedUpdate(core, cores, tmp_path)


def name_of(path: Path) -> str:
    return str(ExecutableCore(path))


async def test_the_core_of_the_update_runs(update: InterruptedUpdate, core: FakeCore, cores: CoreStore) -> None:
    old = add(cores, OLD)
    new = begin(cores, NEW)
    await update.resolve(name_of(new))
    assert str(core.core) == name_of(new)
    assert core.asked == [core.core]
    assert (cores.selected(), cores.begun()) == (new, None)
    assert old.exists(), "one can go back"
    await update.resolve(name_of(new))
    assert len(core.asked) == 1, "it is done"


@pytest.mark.parametrize("running", ["", "executable /usual/xray"])
async def test_another_core_runs_or_none(
    update: InterruptedUpdate, core: FakeCore, cores: CoreStore, running: str
) -> None:
    usual, old = core.core, add(cores, OLD)
    new = begin(cores, NEW)
    await update.resolve(running)
    assert (core.core, cores.selected(), cores.begun()) == (usual, old, None)
    assert not new.parent.exists()


async def test_a_core_that_cannot_be_run_again(update: InterruptedUpdate, core: FakeCore, cores: CoreStore) -> None:
    usual = core.core
    new = begin(cores, NEW)
    core.broken = EverythingBroken()
    await update.resolve(name_of(new))
    assert (core.core, cores.selected(), cores.begun()) == (usual, None, None)


async def test_no_update_was_interrupted(
    update: InterruptedUpdate, core: FakeCore, cores: CoreStore, tmp_path: Path
) -> None:
    usual, old = core.core, add(cores, OLD)
    (tmp_path / "cores" / "coming.json").write_text("{")
    await update.resolve(name_of(old))
    assert (core.core, cores.selected()) == (usual, old)
    assert not (tmp_path / "cores" / "coming.json").exists()
    assert "CoreStore" in repr(update)


async def test_a_disk_that_takes_nothing(update: InterruptedUpdate, core: FakeCore, cores: CoreStore) -> None:
    new = begin(cores, NEW)
    (new.parent / "sha256.new").mkdir()
    await update.resolve(name_of(new))
    assert str(core.core) == name_of(new), "nobody is dropped for it"
    assert cores.begun() == NEW, "the next supervisor records it"
