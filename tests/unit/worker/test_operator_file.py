"""An operator's file for Gunicorn, as it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.worker.operator_file import OperatorFile

NAMES = {"workers": 2, "bind": ["127.0.0.1:1"], "_private": 5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gunicorn.conf.py"


def run(operator: OperatorFile, file: Path, text: str) -> tuple[object, list[str]]:
    file.write_text(text)
    told: list[str] = []
    return operator.run(file, NAMES, told.append), told


def test_it_may_use_what_the_node_set(file: Path) -> None:
    operator = OperatorFile()
    assert "not run yet" in repr(operator)
    text = "workers = workers * _private\nmine = 1\ndef pre_fork(server, worker): ...\n"
    found, told = run(operator, file, text)
    assert isinstance(found, dict)
    assert found.keys() == {"workers", "pre_fork"}
    assert found["workers"] == 10
    assert not told
    assert repr(operator) == "OperatorFile(['pre_fork', 'workers'])"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("workers = 'many'\n", "it sets workers to 'many', which Gunicorn does not take: "),
        ("workers = nine\n", "it failed with NameError: name 'nine' is not defined"),
        ("raise SystemExit(3)\n", "it failed with SystemExit: 3"),
        ("globals()['bind'] = ':80'\n", "it sets bind, which is the node's own: set NODE_HOST"),
        ("bind = ':80'\n", "line 1 of it sets bind, which is the node's own"),
    ],
)
def test_what_cannot_be_used(file: Path, text: str, why: str) -> None:
    """At the start it is an error; at a reload what was said before stays."""
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        OperatorFile().run(file, NAMES, pytest.fail)
    assert str(caught.value).startswith(f"GUNICORN_CONF={file}: {why}")
    operator = OperatorFile()
    run(operator, file, "workers = 7\n")
    found, told = run(operator, file, text)
    assert found == {"workers": 7}
    [sentence] = told
    assert sentence.startswith(f"GUNICORN_CONF={file}: {why}")
    assert sentence.endswith("; what it said before stays in force")


def test_one_that_has_gone_stays_in_force(file: Path) -> None:
    operator = OperatorFile()
    run(operator, file, "workers = 7\n")
    file.unlink()
    told: list[str] = []
    assert operator.run(file, NAMES, told.append) == {"workers": 7}
    assert "existing file" in told[0]
