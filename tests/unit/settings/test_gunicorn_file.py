"""What may stand in an operator's file for Gunicorn."""

from __future__ import annotations

from pathlib import Path

import pytest
from gunicorn.config import KNOWN_SETTINGS

from pgnode.settings.gunicorn_file import OWNED, check_gunicorn_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gunicorn.conf.py"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "workers = 8\nmax_requests = 1000\n",
        "import multiprocessing\nworkers = multiprocessing.cpu_count()\n",
        "def pre_fork(server, worker):\n    bind = 1\n",
        "def child_exit(server, worker): ...\n",
    ],
)
def test_a_file_that_may_be_used(file: Path, text: str) -> None:
    file.write_text(text)
    assert check_gunicorn_file(file) == file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bind = ':80'\n", "line 1 of it sets bind, which is the node's own: set NODE_HOST, SERVICE_PORT and API_PORT"),
        (
            "workers = 2\n\ncertfile: str = 'x'\n",
            "line 3 of it sets certfile, which is the node's own: set SSL_CERT_FILE",
        ),
        ("keyfile = certfile = 'x'\n", "line 1 of it sets keyfile"),
        (
            "if True:\n    worker_class = 'sync'\n",
            "line 2 of it sets worker_class, which is the node's own: leave it out",
        ),
        ("for bind in (1, 2): pass\n", "line 1 of it sets bind"),
        ("try:\n    daemon = True\nfinally:\n    pass\n", "line 2 of it sets daemon"),
        ("if True:\n    def post_fork(server, worker): ...\n", "line 2 of it sets post_fork"),
        ("def post_fork(server, worker): ...\n", "line 1 of it sets post_fork"),
        ("from x import y as chdir\n", "line 1 of it sets chdir"),
        ("workers = 2\nthreads == \n", "line 2 of it is not valid Python: "),
    ],
)
def test_a_file_that_is_refused(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match="^" + told.replace("(", r"\(").replace(".", r"\.")):
        check_gunicorn_file(file)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"workers = 1\x00", b"# coding: nothing\n", b"(" * 10_000])
def test_a_file_that_is_no_python(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"not valid Python|not Python source"):
        check_gunicorn_file(file)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed is the path of an existing file"):
        check_gunicorn_file(tmp_path)


def test_a_file_that_cannot_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match="the file cannot be read: Permission denied"):
        check_gunicorn_file(file)


def test_what_is_owned_is_known_to_gunicorn() -> None:
    assert OWNED.keys() <= {setting.name for setting in KNOWN_SETTINGS}
