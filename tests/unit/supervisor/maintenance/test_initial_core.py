"""Which core a supervisor begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import ChildFailedError
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.initial_core import select_initial_core
from pgnode.xray.process.base import Core
from tests.unit.supervisor.maintenance.fakes import FakeCore
from tests.unit.supervisor.maintenance.test_core_store import add


class EverythingBroken(list[Core]):
    """Whatever is asked for cannot be run."""

    def __contains__(self, _core: object) -> bool:
        return True


@pytest.fixture
def cores(tmp_path: Path) -> CoreStore:
    return CoreStore(tmp_path, None, 1000)


async def test_without_a_selection_it_is_the_default(cores: CoreStore, tmp_path: Path) -> None:
    core = FakeCore()
    default = core.core
    await select_initial_core(core, cores, tmp_path)
    assert core.asked == [default]
    assert core.core is default


@pytest.mark.parametrize("own_assets", [True, False])
async def test_what_an_interrupted_job_left_in_the_own_folder_is_removed(
    cores: CoreStore, tmp_path: Path, own_assets: bool
) -> None:
    left = tmp_path / "assets" / ".geofiles.new"
    left.mkdir(parents=True)
    (left / "geoip.dat").write_bytes(b"half")
    await select_initial_core(FakeCore(), cores, tmp_path / "assets", own_assets=own_assets)
    assert left.exists() is not own_assets


async def test_the_selected_one_is_taken(cores: CoreStore, tmp_path: Path) -> None:
    path = add(cores, "1.0.0")
    core = FakeCore()
    await select_initial_core(core, cores, tmp_path)
    assert str(path) in str(core.core)
    assert core.asked == [core.core]


async def test_a_selected_one_that_cannot_be_run_is_left_aside(cores: CoreStore, tmp_path: Path) -> None:
    add(cores, "1.0.0")
    core = FakeCore()
    default = core.core

    class OnlyTheDefault(EverythingBroken):
        def __contains__(self, asked: object) -> bool:
            return asked is not default

    core.broken = OnlyTheDefault()
    await select_initial_core(core, cores, tmp_path)
    assert core.core is default
    assert len(core.asked) == 2


async def test_without_any_core_there_is_no_node(cores: CoreStore, tmp_path: Path) -> None:
    core = FakeCore()
    core.broken = EverythingBroken()
    with pytest.raises(ChildFailedError, match="the core cannot be run: no such program"):
        await select_initial_core(core, cores, tmp_path)
