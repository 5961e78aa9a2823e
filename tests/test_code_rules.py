"""Rules of the project that no linter knows, held against its code, and the rules themselves."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.code_rules import foreign_assignments, may_patch, patched_constants, record_fields, told
from tests.coverage_gate import is_generated
from tests.generated_docs import ROOT
from tests.test_layout import tracked

#: Module -> fields of other objects that it may assign to, and why.
FOREIGN_FIELDS: dict[str, tuple[set[str], str]] = {
    "pgnode/api/rest/falcon_app.py": (
        {
            "app.resp_options.default_media_type",
            "app.req_options.strip_url_path_trailing_slash",
            "resp.content_type",
            "resp.data",
            "resp.stream",
        },
        "Falcon's options and responses are filled in so",
    ),
    "pgnode/api/rest/response_chunks.py": ({"response.data"}, "Falcon's responses are filled in so"),
    "pgnode/bus/redis_compat.py": (
        {"connection._writer", "connection._reader"},
        "redis-py's connection must not close the transport that is taken from it",
    ),
    "pgnode/testing/panel.py": ({"self._tls.verify_flags"}, "the standard library's TLS contexts are set up so"),
    "pgnode/worker/certificate.py": (
        {"self.context.sni_callback", "connection.context"},
        "the standard library's way to choose a certificate for each handshake",
    ),
    "pgnode/worker/gunicorn_compat.py": (
        {
            "ASGIProtocol._h1c_protocol_class",
            "Arbiter.spawn_worker",
            "gasgi.ASGIProtocol",
            "protocol._CACHED_SERVER_HEADER",
            "protocol.PythonProtocol",
        },
        "Gunicorn has no other way to give it a class of connections, a master that goes on, and no header Server",
    ),
    "pgnode/worker/gunicorn_conf.py": (
        {"context.minimum_version"},
        "the standard library's TLS contexts are set up so",
    ),
    "pgnode/xray/transport/headers.py": ({"self._decoder.max_allowed_table_size"}, "hpack's decoder is set up so"),
}


@cache
def modules(folder: str, wanted: Callable[[str], bool] = bool) -> dict[str, ast.Module]:
    """Every module that somebody wrote under a folder, by its path, whose code is ``wanted``."""
    paths = [path for path in tracked() if path.suffix == ".py" and ROOT / folder in path.parents]
    return {
        str(path.relative_to(ROOT)): ast.parse(code)
        for path in paths
        if not is_generated(path.name) and wanted(code := path.read_text(encoding="utf-8"))
    }


def test_nobody_assigns_to_another_objects_fields() -> None:
    """Pass it to the constructor instead. An exception that is not needed any more is an error, too."""
    ours = modules("pgnode")
    records = set[str]().union(*(record_fields(tree) for tree in ours.values()))
    found = {module: list(foreign_assignments(tree, records)) for module, tree in ours.items()}
    wrong = {
        module: iter([(line, what) for line, what in findings if what not in FOREIGN_FIELDS.get(module, ({},))[0]])
        for module, findings in found.items()
    }
    assert told(wrong) == []
    for module, (allowed, _reason) in FOREIGN_FIELDS.items():
        assert allowed == {what for _, what in found[module]}, module


def test_whatever_is_called_pure_has_a_contract() -> None:
    """Docstrings of modules say "Pure"; pyproject.toml says what those may not import, however indirectly."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    promised = [
        source
        for contract in contracts
        if {"asyncio", "redis", "sqlite3", "structlog", "time"} <= set(contract.get("forbidden_modules", ()))
        for source in contract["source_modules"]
    ]
    called_pure = {
        module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for module, tree in modules("pgnode").items()
        if re.search(r"\bPure\b", ast.get_docstring(tree) or "")
    }
    assert [name for name in sorted(called_pure) if not any(f"{name}.".startswith(f"{one}.") for one in promised)] == []


@pytest.mark.parametrize("folder", ["tests", "bench", "pgnode"])
def test_no_test_patches_a_constant(folder: str) -> None:
    """Let the code under test take the value as an argument."""
    assert told({module: patched_constants(tree) for module, tree in modules(folder, may_patch).items()}) == []


@pytest.mark.parametrize(
    "code",
    [
        'monkeypatch.setattr(module, "LIMIT_SECONDS", 1)',
        'monkeypatch.setattr("pgnode.bus.users.LIMIT_SECONDS", 1)',
        'with mock.patch.object(module, "LIMIT_SECONDS", 1): pass',
        'with patch("pgnode.bus.users.LIMIT_SECONDS", 1): pass',
        "module.LIMIT_SECONDS = 1",
        'setattr(module.inner, "LIMIT_SECONDS", 1)',
        'monkeypatch.delattr(module, "LIMIT_SECONDS")',
        "module.LIMIT_SECONDS: int = 1",
        "module.LIMIT_SECONDS <<= 1",
        "del module.LIMIT_SECONDS",
    ],
)
def test_a_patched_constant_is_found(code: str) -> None:
    tree = ast.parse(f"from pgnode.bus import users as module\n{code}")
    assert may_patch(code)
    assert list(patched_constants(tree)) == [(2, "LIMIT_SECONDS")]


@pytest.mark.parametrize(
    "code", ['setattr(module, "run", f)', 'setattr(ctypes, "CDLL", f)', "self.LIMIT = 1", "module.limit = 1", "f(1)"]
)
def test_other_things_may_be_patched(code: str) -> None:
    assert list(patched_constants(ast.parse(f"import ctypes\nfrom pgnode.bus import users as module\n{code}"))) == []


def test_a_field_of_another_object_is_found_and_records_are_left_alone() -> None:
    tree = ast.parse(
        Path(__file__).with_name("data").joinpath("assignments.py.txt").read_text(encoding="utf-8"),
    )
    assert record_fields(tree) == {"count"}
    assert [what for _, what in foreign_assignments(tree, record_fields(tree))] == [
        "node.limit",
        "node.users.limit",
        "other._count",
        "machine.sent",
    ]


def test_commands_print_by_one_function() -> None:
    """Names come from outside: :func:`pgnode.cli.output.say` prints nothing that a terminal obeys."""
    found = [
        (name, node.lineno)
        for name, tree in modules("pgnode").items()
        if name.startswith("pgnode/cli/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"click.echo", "click.secho", "print"}
    ]
    assert {name for name, _ in found} == {"pgnode/cli/output.py"}, found
