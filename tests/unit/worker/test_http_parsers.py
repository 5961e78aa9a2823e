"""Which parser of HTTP requests is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pgnode.errors import DependencyError
from pgnode.worker.http_parsers import FAST_PARSER_INSTALLED, choose_parser


@pytest.mark.parametrize(
    ("wanted", "installed", "chosen"),
    [("auto", True, "fast"), ("auto", False, "python"), ("fast", True, "fast"), ("python", True, "python")],
)
def test_the_fast_parser_is_chosen_where_it_is_there(wanted: str, installed: bool, chosen: str) -> None:
    assert choose_parser(wanted, fast_installed=installed) == chosen


def test_a_fast_parser_that_is_asked_for_and_missing_is_an_error() -> None:
    with pytest.raises(DependencyError, match=r"HTTP_PARSER=fast needs gunicorn_h1c.*C compiler"):
        choose_parser("fast", fast_installed=False)


@pytest.mark.parametrize("parser", ["python", *(["fast"] if FAST_PARSER_INSTALLED else [])])
def test_what_workers_would_load_is_loaded_before(parser: str) -> None:
    look = (
        "import sys; from pgnode.worker import http_parsers; http_parsers.load_for_workers(sys.argv[1]); "
        "print(*sys.modules)"
    )
    looked = subprocess.run([sys.executable, "-c", look, parser], capture_output=True, text=True, check=True)
    loaded = looked.stdout.split()
    assert "uvloop" in loaded
    assert ("pgnode.worker.h1c_compat" in loaded) == (parser == "fast")
