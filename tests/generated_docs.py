"""The parts of docs/ that are made from the code: ``python -m tests.generated_docs`` writes them, a test compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pgnode import __version__
from pgnode.api.documents.markdown import api_page
from pgnode.api.documents.openapi import openapi_text
from pgnode.bus.access import NEEDS, Role, rules
from pgnode.bus.keys import CATALOGUE
from pgnode.metrics.catalogue import FAMILIES
from pgnode.settings.document import markdown as configuration_page
from pgnode.supervisor.lifecycle import states
from pgnode.supervisor.processes.catalogue import PROCESSES
from pgnode.supervisor.tasks import TASKS
from tests.man_page import man_page

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
API = ROOT / "docs" / "api.md"
METRICS = ROOT / "docs" / "metrics.md"
REDIS = ROOT / "docs" / "redis.md"
OPENAPI = ROOT / "docs" / "openapi.json"
PROTO = ROOT / "docs" / "service.proto"
#: In the package, so that it is there wherever a wheel is built.
MANUAL = ROOT / "pgnode" / "pgnode.1"

_END = "<!-- end -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def sections() -> dict[str, str]:
    """Name of a section of the architecture page -> what it says."""
    return {
        "tasks": table(("task", "duty"), ((spec.name, spec.duty) for spec in TASKS)),
        "processes": table(
            ("process", "how many", "duty", "kept up by", "when the supervisor is killed"),
            ((p.name, p.number, p.duty, p.kept_up_by, p.without_supervisor) for p in PROCESSES),
        ),
        "keys": table(
            ("key, after the prefix", "type", "written by", "lifetime", "meaning"),
            ((f"`{k.name}`", k.type, k.writer, k.lifetime, k.meaning) for k in CATALOGUE),
        ),
        "states": f"```mermaid\n{states.mermaid()}\n```",
    }


def access_rules() -> str:
    """The rules of Redis's users, as they stand in a file of them."""
    users = {"pgnode": Role.SUPERVISOR, "pgnode-worker": Role.WORKER}
    lines = [f"user {name} on >PASSWORD {rules(role, 'pgnode')}" for name, role in users.items()]
    needed = table(
        ("command", "what for", "workers"), ((f"`{n.rule}`", n.why, "yes" if n.worker else "--") for n in NEEDS)
    )
    return "\n".join(["```", *lines, "```", "", needed])


def metrics_table() -> str:
    """All metrics of the node."""
    return table(
        ("metric", "type", "labels", "meaning"),
        (
            (
                f"`{family.full_name}`",
                family.type,
                "; ".join(f"`{label.name}`: {label.values}" for label in family.labels) or "--",
                family.meaning,
            )
            for family in FAMILIES
        ),
    )


def with_sections(text: str, contents: Mapping[str, str]) -> str:
    """A page with its generated sections as they should be."""
    for name, content in contents.items():
        begin = f"<!-- generated: {name} -->\n"
        head, rest = text.split(begin)
        _, tail = rest.split(_END, 1)
        text = f"{head}{begin}\n{content}\n\n{_END}{tail}"
    return text


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    return {
        CONFIGURATION: configuration_page(),
        ARCHITECTURE: with_sections(ARCHITECTURE.read_text(encoding="utf-8"), sections()),
        REDIS: with_sections(REDIS.read_text(encoding="utf-8"), {"access": access_rules()}),
        METRICS: with_sections(METRICS.read_text(encoding="utf-8"), {"metrics": metrics_table()}),
        API: api_page(),
        OPENAPI: openapi_text(__version__),
        MANUAL: man_page(ROOT / "CHANGELOG.md"),
        PROTO: (ROOT / "pgnode" / "wire" / "service.proto").read_text(encoding="utf-8"),
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
