"""Which parser of HTTP requests the workers use: Gunicorn's own, or the fast one, which is compiled at its installation."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from pgnode.errors import DependencyError

#: Whether the fast parser is there.
FAST_PARSER_INSTALLED = find_spec("gunicorn_h1c") is not None


def choose_parser(wanted: str, *, fast_installed: bool = FAST_PARSER_INSTALLED) -> str:
    """Choose the parser of HTTP requests.

    Args:
        wanted: The setting HTTP_PARSER: "auto", "fast" or "python".
        fast_installed: Whether the fast parser is there.

    Returns:
        Gunicorn's name of it: "fast" or "python".

    Raises:
        DependencyError: The fast parser is wanted and not there.
    """
    if wanted == "fast" and not fast_installed:
        raise DependencyError(
            "HTTP_PARSER=fast needs gunicorn_h1c, which is not installed: it needs a C compiler. "
            "Install one and run `make install` again, or set HTTP_PARSER=auto"
        )
    return "python" if wanted == "python" or not fast_installed else "fast"


def load_for_workers(parser: str) -> None:
    """Load in the master what every worker would load by itself; the parser is as Gunicorn calls it."""
    for module in ("uvloop", *(["pgnode.worker.h1c_compat"] if parser == "fast" else [])):
        import_module(module)
