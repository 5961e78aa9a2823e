"""The parts of docs/ that are made from the code: ``python -m tests.generated_docs`` writes them, a test compares them."""

from __future__ import annotations

from pathlib import Path

from pgnode import __version__
from pgnode.api.documents.markdown import api_page
from pgnode.api.documents.openapi import openapi_text
from pgnode.settings.document import markdown as configuration_page
from pgnode.supervisor.lifecycle import states

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
API = ROOT / "docs" / "api.md"
OPENAPI = ROOT / "docs" / "openapi.json"
PROTO = ROOT / "docs" / "service.proto"

_BEGIN, _END = "<!-- generated: states -->\n", "<!-- end -->"


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    head, rest = text.split(_BEGIN)
    _, tail = rest.split(_END, 1)
    diagram = f"{_BEGIN}\n```mermaid\n{states.mermaid()}\n```\n\n{_END}"
    return {
        CONFIGURATION: configuration_page(),
        ARCHITECTURE: head + diagram + tail,
        API: api_page(),
        OPENAPI: openapi_text(__version__),
        PROTO: (ROOT / "pgnode" / "wire" / "service.proto").read_text(encoding="utf-8"),
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
