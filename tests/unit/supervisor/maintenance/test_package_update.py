"""The steps of an upgrade, with a program in pip's place; tests/e2e/test_package_update.py has the real one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pgnode.errors import DeadlineExceededError, UpdateFailedError
from pgnode.supervisor.maintenance.package_update import PackageUpdate
from pgnode.supervisor.processes.restart_in_place import Trial
from tests.unit.supervisor.maintenance.stub_pip import StubPip


class Stage:
    def __init__(self, folder: Path) -> None:
        self.pip = StubPip(folder)
        self.pip.offers({"pgnode": "1.1", "Some-Thing": "3"})
        self.work = folder / "work"
        #: The variables of each trial; and why those beside, or in place, fail.
        self.tried: list[dict[str, str]] = []
        self.refuses: dict[bool, str] = {}

    async def try_version(self, variables: Mapping[str, str]) -> Trial:
        self.tried.append(dict(variables))
        return Trial(self.refuses.get("PYTHONPATH" in variables, ""))

    async def update(self, seconds: float = 60) -> str | None:
        try:
            return await PackageUpdate(self.pip.installation, self.work, seconds, self.try_version).run()
        finally:
            assert not self.work.exists()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return Stage(tmp_path)


async def test_an_upgrade_is_tried_beside_before_it_is_installed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert await stage.update() == "1.1"
    found, loaded, beside, before, after, installed, last = (call.split("|")[1] for call in stage.pip.calls)
    assert found.startswith("install --only-binary :all: --dry-run --report ")
    assert loaded.startswith("download --only-binary :all: --no-deps")
    assert loaded.endswith("pgnode==1.1 some-thing==3 --quiet")
    assert "--no-index" in beside
    assert f"--target {stage.work}/packages pgnode==1.1 some-thing==3" in beside
    assert (before, after, last) == ("check", "check", "check")
    assert "--no-index" in installed
    assert installed.endswith("--upgrade pgnode==1.1 some-thing==3 --quiet")
    assert stage.tried == [{"PYTHONPATH": f"{stage.work}/packages:/mine"}, {}]
    assert {"pgnode/of_1.1.py", "pgnode-1.1.dist-info/RECORD"} == stage.pip.content.keys()


async def test_nothing_newer_is_no_upgrade(stage: Stage) -> None:
    stage.pip.offers({})
    assert await stage.update() is None
    assert len(stage.pip.calls) == 1


@pytest.mark.parametrize("word", ["install", "download"])
async def test_what_pip_cannot_do_changes_nothing(stage: Stage, word: str) -> None:
    before = stage.pip.content
    stage.pip.fails(word)
    with pytest.raises(UpdateFailedError, match=f"`pip {word}` failed: out of luck"):
        await stage.update()
    assert stage.pip.content == before


async def test_a_report_that_says_nothing(stage: Stage) -> None:
    (stage.pip.folder / "report.json").write_text("[]")
    with pytest.raises(UpdateFailedError, match="pip's report cannot be read"):
        await stage.update()


async def test_what_does_not_fit_is_not_installed(stage: Stage) -> None:
    before = stage.pip.content
    (stage.pip.folder / "complaints").write_text("plugin 1.0 has requirement pgnode<1.1, but you have pgnode 1.1.\n")
    with pytest.raises(UpdateFailedError, match=r"pgnode 1.1 was not installed: plugin 1.0 has requirement"):
        await stage.update()
    assert (stage.pip.content, stage.tried) == (before, [])


async def test_what_cannot_start_is_not_installed(stage: Stage) -> None:
    before = stage.pip.content
    stage.refuses[True] = "no such module"
    with pytest.raises(UpdateFailedError, match=r"1.1 was not installed: it cannot start here: no such module"):
        await stage.update()
    assert stage.pip.content == before


async def test_what_fails_in_place_is_taken_back(stage: Stage) -> None:
    before = stage.pip.content
    stage.refuses[False] = "out of luck"
    with pytest.raises(UpdateFailedError, match=r"pgnode 1.1 was taken back: it cannot start here: out of luck"):
        await stage.update()
    assert stage.pip.content == before
    (stage.pip.folder / "dies").touch()
    with pytest.raises(UpdateFailedError, match=r"`pip install` failed: half way"):
        await stage.update()
    assert stage.pip.content == before


async def test_its_time_is_for_all_of_it(stage: Stage) -> None:
    stage.pip.hang()
    with pytest.raises(DeadlineExceededError, match="pip install did not end within 1 s"):
        await stage.update(seconds=0)
