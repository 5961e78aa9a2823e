"""Upgrades with pip, in a real environment and from a folder of wheels: no network."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgnode.errors import UpdateFailedError
from pgnode.supervisor.maintenance.installation import Installation
from pgnode.supervisor.maintenance.package_update import PackageUpdate
from pgnode.supervisor.processes.restart_in_place import Trial, try_installed
from tests.support.wheels import install_wheel, make_environment, make_wheel, uninstall

#: Pip is run up to fifteen times in each.
pytestmark = pytest.mark.timeout(600)

#: Seconds that an upgrade may take on a busy machine.
LIMIT_SECONDS = 200.0

SAYS = "import pgnode, helper; print(pgnode.VERSION, helper.VERSION)"


def files(version: str, name: str = "pgnode") -> dict[str, str]:
    return {f"{name}/__init__.py": f"VERSION = {version!r}\n", f"{name}/only_{version.replace('.', '_')}.py": ""}


class Stage:
    def __init__(self, folder: Path, python: Path) -> None:
        self.python = python
        self.index = folder / "index"
        self.work = folder / "work"
        self.prefix = python.parents[1]
        [self.packages] = self.prefix.glob("lib/python3*/site-packages")
        #: What each trial was told, and what the next ones answer.
        self.tried: list[bool] = []
        self.refuses: dict[bool, str] = {}

    def offer(self, version: str, *requires: str) -> None:
        make_wheel(self.index, "pgnode", version, files(version), requires or ("helper",))

    def install(self, wheel: Path) -> None:
        install_wheel(wheel, self.packages)

    async def try_version(self, variables: Mapping[str, str]) -> Trial:
        beside = "PYTHONPATH" in variables
        self.tried.append(beside)
        said = await try_installed([str(self.python), "-P", "-c", "import pgnode, helper"], dict(variables))
        return Trial(self.refuses[beside]) if beside in self.refuses else said

    def said(self) -> str:
        ran = subprocess.run(
            [str(self.python), "-P", "-c", SAYS], check=True, capture_output=True, text=True, timeout=60
        )
        return ran.stdout.strip()

    def content(self) -> dict[str, bytes]:
        """All files that are installed, but for what is compiled of them."""
        found = (path for path in self.packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {
            str(path.relative_to(self.packages)): path.read_bytes() for path in found if "pip" not in path.parts[-3]
        }

    def update(self, seconds: float = LIMIT_SECONDS) -> PackageUpdate:
        installation = Installation(str(self.python), self.prefix, self.packages, "1.0")
        return PackageUpdate(installation, self.work, seconds, self.try_version)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("update") / "venv")


@pytest.fixture
def stage(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path, python)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.index))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    for name in ("pgnode", "helper"):
        uninstall(name, made.packages)
        made.install(make_wheel(made.index, name, "1.0", files("1.0", name), ("helper",) if name == "pgnode" else ()))
    return made


async def test_what_cannot_be_had_or_does_not_fit_changes_nothing(stage: Stage) -> None:
    before = stage.content()
    stage.offer("1.1", "helper>=9")
    assert await stage.update().run() is None, "pip takes the newest that can be had"
    stage.offer("1.1")
    # Another package of the environment needs the version that is there.
    stage.install(make_wheel(stage.index, "plugin", "1.0", {"plugin.py": ""}, ["pgnode<1.1"]))
    with pytest.raises(UpdateFailedError, match=r"pgnode 1.1 was not installed: plugin 1.0 .*pgnode<1.1.*1.1"):
        await stage.update().run()
    uninstall("plugin", stage.packages)
    assert stage.content() == before
    assert stage.tried == []


async def test_an_upgrade_with_what_it_needs_and_one_before_it_that_fails_in_place(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_TARGET", str(stage.work / "elsewhere"))
    before = stage.content()
    assert await stage.update().run() is None, "there is no newer one"
    assert stage.tried == []
    stage.offer("1.1", "helper>=2")
    make_wheel(stage.index, "helper", "2.0", files("2.0", "helper"))
    stage.refuses[False] = "out of luck"
    with pytest.raises(UpdateFailedError, match=r"pgnode 1.1 was taken back: it cannot start here: out of luck"):
        await stage.update().run()
    assert stage.content() == before
    assert stage.said() == "1.0 1.0"
    # As pip sees it, too: the next upgrade is one like any other.
    stage.refuses.clear()
    stage.tried.clear()
    assert await stage.update().run() == "1.1"
    assert stage.said() == "1.1 2.0"
    assert stage.tried == [True, False], "beside, and then in place"
    assert not any(path.endswith("only_1_0.py") for path in stage.content())
    assert not stage.work.exists()
