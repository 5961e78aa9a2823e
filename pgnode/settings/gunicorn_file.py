"""GUNICORN_CONF, an operator's own file of settings for Gunicorn: what may not stand in it. The file is read, not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

_CERTIFICATE: Final = "set SSL_CERT_FILE and SSL_KEY_FILE"
_NOTHING: Final = "leave it out"

#: Settings of Gunicorn's that are the node's own -> what to do in place of setting them.
OWNED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bind": "set NODE_HOST, SERVICE_PORT and API_PORT",
        "certfile": _CERTIFICATE,
        "keyfile": _CERTIFICATE,
        "ssl_context": _CERTIFICATE,
        "http_parser": "set HTTP_PARSER",
        "asgi_lifespan": _NOTHING,
        "chdir": _NOTHING,
        "daemon": _NOTHING,
        "on_starting": _NOTHING,
        "post_fork": _NOTHING,
        "reuse_port": _NOTHING,
        "when_ready": _NOTHING,
        "worker_class": _NOTHING,
        "wsgi_app": _NOTHING,
    }
)


def check_gunicorn_file(path: Path) -> Path:
    """Return ``path``; refuse it where the file is no Python, or sets what is the node's own.

    Args:
        path: The file.

    Returns:
        The same.

    Raises:
        ValueError: It cannot be used; the text says where and what to do.
    """
    if not path.is_file():
        raise ValueError("allowed is the path of an existing file")
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror or error}") from None
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno or 1} of it is not valid Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the file is not Python source: {error}") from None
    for line, name in _set_names(tree.body):
        if name in OWNED:
            raise ValueError(f"line {line} of it sets {name}, which is the node's own: {OWNED[name]}")
    return path


def _set_names(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that is set outside of functions and classes."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.lineno, statement.name
            continue
        for part in ast.walk(statement):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.lineno, part.id
            elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                yield part.lineno, part.name
            elif isinstance(part, ast.alias):
                yield part.lineno, part.asname or part.name
