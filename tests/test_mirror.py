"""Every module has its unit tests where one looks for them."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.coverage_gate import exceptions, is_generated
from tests.generated_docs import ROOT
from tests.test_layout import tracked


def _has_code(path: Path) -> bool:
    """Whether a module is more than a docstring, imports and names for others."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    said = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    return any(not isinstance(statement, said) for statement in body)


def _test_module(module: Path) -> str:
    """Where the unit tests of a module are; a package's own code is tested in ``test_<package>.py`` inside."""
    inside = module.relative_to(ROOT / "pgnode")
    name = inside.parent.name if inside.stem == "__init__" else inside.stem.strip("_")
    return str(Path("tests", "unit", inside.parent, f"test_{name}.py"))


def test_every_module_has_its_unit_tests_in_the_mirrored_place() -> None:
    """But for those that cannot be covered in this process; tests/coverage_gate.py knows whether they need the exception."""
    modules = [
        path
        for path in tracked()
        if path.suffix == ".py" and ROOT / "pgnode" in path.parents and not is_generated(path.name) and _has_code(path)
    ]
    untested = {str(path.relative_to(ROOT)) for path in modules if not (ROOT / _test_module(path)).is_file()}
    assert sorted(untested - exceptions().keys()) == []


def test_every_unit_test_module_has_its_module() -> None:
    """What tests no single module belongs to another folder; ``test_<module>_<aspect>.py`` may cut a long one."""
    modules = [path for path in tracked() if path.suffix == ".py" and ROOT / "pgnode" in path.parents]
    expected = {_test_module(path).removesuffix(".py") for path in modules}
    found = {
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.name.startswith("test_") and ROOT / "tests" / "unit" in path.parents
    }
    lost = [name for name in found if not any(name == f"{of}.py" or name.startswith(f"{of}_") for of in expected)]
    assert sorted(lost) == []
