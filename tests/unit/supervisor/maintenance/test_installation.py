"""How a node was installed, and whether it may upgrade itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import pgnode
from pgnode.errors import UnsupportedError
from pgnode.supervisor.maintenance.installation import Installation, find_installation

#: Whoever is root may write everywhere.
NOBODY_ELSE = Path("/proc")


class Environment:
    """A virtual environment with a node in it."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder
        self.packages = folder / "lib" / "python3" / "site-packages"
        self.package = self.packages / "pgnode"
        self.record = self.packages / "pgnode-0.6.0.dist-info"
        for made in (self.package, self.record, folder / "bin"):
            made.mkdir(parents=True)
        (self.record / "INSTALLER").write_text("pip\n")

    def find(self, *, base: Path = Path("/usr"), marks: tuple[Path, ...] = ()) -> Installation:
        return find_installation(self.package, self.prefix, base, marks)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


def test_a_wheel_in_an_environment_that_may_be_written(environment: Environment) -> None:
    assert environment.find() == Installation(
        sys.executable, environment.prefix, environment.packages, pgnode.__version__
    )


def test_a_checkout_is_updated_as_one() -> None:
    with pytest.raises(UnsupportedError, match=r"from a checkout .*git pull.*make install.*restart.*UPDATE_COMMAND"):
        find_installation()


def test_an_image_is_replaced_and_not_changed(environment: Environment, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert environment.find(marks=(mark,))
    mark.touch()
    if environment.prefix.stat().st_dev == Path("/").stat().st_dev:
        with pytest.raises(UnsupportedError, match=r"image of a container.*newer image.*UPDATE_COMMAND"):
            environment.find(marks=(mark,))
    else:
        assert environment.find(marks=(mark,)), "on a volume it outlives the container"


def test_what_others_installed_is_theirs(environment: Environment) -> None:
    with pytest.raises(UnsupportedError, match="belongs to the system's Python: update it as it was installed"):
        environment.find(base=environment.prefix)
    for installer, words in (("uv", "was installed by uv"), ("", "belongs to the system's Python")):
        (environment.record / "INSTALLER").write_text(installer)
        with pytest.raises(UnsupportedError, match=words):
            environment.find()
    (environment.record / "INSTALLER").unlink()
    with pytest.raises(UnsupportedError, match="update it as it was installed"):
        environment.find()


def test_an_environment_of_root_is_upgraded_by_root(environment: Environment) -> None:
    (environment.prefix / "bin").rmdir()
    with pytest.raises(UnsupportedError, match=r"may not write to .*venv: run install.sh of the new version as root"):
        environment.find()
