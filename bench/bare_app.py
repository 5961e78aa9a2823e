"""The least a Falcon app can do, as the other side of a comparison: each path answers with constant bytes.

No key, no routing by body, no errors: what remains is Gunicorn, TLS and Falcon. Gunicorn loads ``application`` with the
configuration of the node's own workers; BENCH_ANSWERS names the folder that :func:`write_answers` filled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import falcon.asgi

from pgnode.testing.panel import PROTOBUF

#: Environment variable with the folder of the answers.
ANSWERS_VARIABLE = "BENCH_ANSWERS"
_INDEX = "index.json"


class Constant:
    """A resource that answers GET with the same bytes each time."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def on_get(self, _request: falcon.asgi.Request, response: falcon.asgi.Response) -> None:
        response.content_type = PROTOBUF
        response.data = self._body


def write_answers(folder: Path, answers: Mapping[str, bytes]) -> None:
    """Put the answers (path -> body) where :func:`build` finds them."""
    names = {}
    for number, (path, body) in enumerate(answers.items()):
        names[path] = f"{number}.bin"
        (folder / names[path]).write_bytes(body)
    (folder / _INDEX).write_text(json.dumps(names), encoding="utf-8")


def build(folder: Path) -> falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]:
    """The app with the answers in ``folder``."""
    app = falcon.asgi.App()
    for path, name in json.loads((folder / _INDEX).read_text(encoding="utf-8")).items():
        app.add_route(path, Constant((folder / name).read_bytes()))
    return app


def __getattr__(name: str) -> falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]:
    """``application``, made when Gunicorn asks for it: importing this file needs no environment."""
    if name == "application":
        return build(Path(os.environ[ANSWERS_VARIABLE]))
    raise AttributeError(name)
