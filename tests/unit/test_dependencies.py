"""The node refuses to start with a version of a dependency whose private members it does not know."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from unittest import mock

import pytest
from click.testing import CliRunner

from pgnode import dependencies
from pgnode.cli import main
from pgnode.errors import DependencyError
from tests.generated_docs import ROOT


def test_what_is_installed_is_known() -> None:
    dependencies.check()


def test_the_bounds_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["fast"]]:
        if match := re.fullmatch(r"([\w-]+)>=([\d.]+),<([\d.]+)", requirement):
            found[match[1]] = dependencies.Bounds(match[2], match[3])
    assert found == dependencies.KNOWN


def test_the_locked_versions_are_within_the_bounds() -> None:
    locks = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", "requirements-fast.lock")]
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", "\n".join(locks), re.MULTILINE))
    real = {name: pins[name.replace("_", "-")] for name in dependencies.KNOWN}
    with mock.patch.object(metadata, "version", side_effect=real.__getitem__):
        dependencies.check()


@pytest.mark.parametrize("name", dependencies.KNOWN)
def test_pgnode_run_ends_before_anything_is_begun(name: str) -> None:
    real = metadata.version

    def version(distribution: str) -> str:
        return "99.1" if distribution == name else real(distribution)

    with (
        mock.patch.object(metadata, "version", side_effect=version),
        mock.patch("pgnode.dependencies.find_spec", return_value=mock.sentinel.found),
        mock.patch("pgnode.supervisor.host.identity.prepare_state_dir") as begun,
    ):
        with pytest.raises(DependencyError, match=f"{name} 99.1 is installed"):
            dependencies.check(name)
        ended = CliRunner().invoke(main, ["run"])
    assert ended.exit_code == 2
    assert ended.output.startswith(f"pgnode: {name} 99.1 is installed, and this version of the node knows ")
    assert "pip install" in ended.output
    begun.assert_not_called()


def test_what_is_optional_may_be_missing() -> None:
    with mock.patch("pgnode.dependencies.find_spec", return_value=None):
        dependencies.check(*dependencies.OPTIONAL)
    with (
        mock.patch("pgnode.dependencies.find_spec", return_value=None),
        mock.patch.object(metadata, "version", side_effect=metadata.PackageNotFoundError("redis")),
        pytest.raises(DependencyError, match="redis"),
    ):
        dependencies.check("redis")
