"""Files of a backup take their places: all of them, wherever that is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.os_support import fault_points
from pgnode.os_support.fault_points import InjectedFaultError
from pgnode.supervisor.host.restored_state import (
    BEFORE,
    GATHERING,
    MEMBERS,
    READY,
    finish_restore,
    make_ready,
)
from pgnode.testing.faults import ArmedFaults

BESIDE = ("state.db-wal", "state.db-shm")


def fill(folder: Path, text: str, names: tuple[str, ...]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    fill(made, "old", (*MEMBERS, *BESIDE, "run/core.sock"))
    return made


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[ArmedFaults]:
    made = ArmedFaults(tmp_path / "fault-points")
    fault_points.use_folder(made.folder)
    yield made
    fault_points.use_folder(None)


AFTER = {
    **dict.fromkeys(MEMBERS, "new"),
    **{f"{BEFORE}/{name}": "old" for name in (*MEMBERS, *BESIDE)},
    "run/core.sock": "old",
}


def test_nothing_stands_ready(state_dir: Path) -> None:
    before = texts(state_dir)
    assert not finish_restore(state_dir)
    fill(state_dir / GATHERING, "half", ("state.db",))
    assert not finish_restore(state_dir), "what was not decided is nothing"
    assert texts(state_dir) == before


def test_all_of_it_takes_its_place(state_dir: Path) -> None:
    fill(state_dir / GATHERING, "new", MEMBERS)
    make_ready(state_dir)
    assert finish_restore(state_dir)
    assert texts(state_dir) == AFTER
    assert not (state_dir / READY).exists()
    # Once more, with other files: what is kept is what was there a moment ago.
    fill(state_dir / GATHERING, "newer", ("state.db",))
    make_ready(state_dir)
    assert finish_restore(state_dir)
    found = texts(state_dir)
    assert (found["state.db"], found["api_key"], found[f"{BEFORE}/state.db"]) == ("newer", "new", "new")
    assert f"{BEFORE}/api_key" not in found


def test_a_new_folder_has_nothing_to_keep(tmp_path: Path) -> None:
    fill(tmp_path / GATHERING, "new", MEMBERS)
    make_ready(tmp_path)
    assert finish_restore(tmp_path)
    assert texts(tmp_path) == dict.fromkeys(MEMBERS, "new")


STEPS = [
    ("restore.ready", 0),
    *(("restore.move", number) for number in range(len(MEMBERS))),
    *(("restore.aside", number) for number in range(len(MEMBERS))),
    ("restore.moved", 0),
]


def restore(state_dir: Path) -> None:
    make_ready(state_dir)
    finish_restore(state_dir)


@pytest.mark.parametrize(("point", "skip"), STEPS)
def test_what_was_interrupted_goes_on_where_it_was(state_dir: Path, faults: ArmedFaults, point: str, skip: int) -> None:
    fill(state_dir / GATHERING, "new", MEMBERS)
    faults.arm(point, "raise", skip=skip)
    with pytest.raises(InjectedFaultError):
        restore(state_dir)
    assert finish_restore(state_dir)
    assert texts(state_dir) == AFTER


def test_before_the_decision_nothing_is_restored(state_dir: Path, faults: ArmedFaults) -> None:
    before = texts(state_dir)
    fill(state_dir / GATHERING, "new", MEMBERS)
    faults.arm("restore.gathered", "raise")
    with pytest.raises(InjectedFaultError):
        make_ready(state_dir)
    assert not finish_restore(state_dir)
    assert texts(state_dir) == before


def test_what_cannot_be_moved_is_told_and_tried_again(state_dir: Path, faults: ArmedFaults) -> None:
    fill(state_dir / GATHERING, "new", MEMBERS)
    make_ready(state_dir)
    faults.arm("restore.aside", "raise ENOSPC", skip=1)
    with pytest.raises(SettingsError, match=r"a restore cannot be finished: No space left .* start the node"):
        finish_restore(state_dir)
    assert finish_restore(state_dir)
    assert texts(state_dir) == AFTER
