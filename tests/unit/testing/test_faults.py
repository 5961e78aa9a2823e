"""A test arms only points that the code has; what they do is tested with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgnode.testing.faults import ArmedFaults, known_points


def test_every_point_of_the_code_is_named_by_its_place_and_moment() -> None:
    assert known_points()
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in known_points())


async def test_points_are_armed_reached_and_let_go(tmp_path: Path) -> None:
    name = min(known_points())
    faults = ArmedFaults(tmp_path / "points")
    with pytest.raises(ValueError, match="no code has the fault point"):
        faults.arm("no.such", "kill")
    faults.arm(name, "wait", skip=3)
    assert (faults.folder / name).read_text() == "wait 3"
    assert faults.reached_by(name) == 0
    with pytest.raises(AssertionError, match="nobody came"):
        await faults.reached(name, 0.01)
    (faults.folder / f"{name}.reached").write_text("7")
    assert await faults.reached(name) == 7
    faults.let_all_go()
    assert sorted(path.name for path in faults.folder.iterdir()) == [f"{name}.go", f"{name}.reached"]
    faults.disarm(name)
    assert not list(faults.folder.iterdir())
