"""The parts of docs/ that are made from the code: ``python -m tests.generated_docs`` writes them, a test compares them."""

from __future__ import annotations

from pathlib import Path

from pgnode import settings
from pgnode.supervisor import states

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

_BEGIN, _END = "<!-- generated: states -->\n", "<!-- end -->"


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    head, rest = text.split(_BEGIN)
    _, tail = rest.split(_END, 1)
    diagram = f"{_BEGIN}\n```mermaid\n{states.mermaid()}\n```\n\n{_END}"
    return {CONFIGURATION: settings.markdown(), ARCHITECTURE: head + diagram + tail}


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
