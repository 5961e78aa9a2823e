"""The generated pages say what the code says, and links between pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.generated_docs import ROOT, pages


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_true(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]
    assert missing == []


def test_what_a_page_names_is_there() -> None:
    """[`planning.py`](…/planning.py) `plan_changes`: the module has such a thing."""
    missing = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, name in re.findall(r"\]\(([^)#]+\.py)\) `([\w.]+)`", page.read_text(encoding="utf-8")):
            module = (page.parent / target).read_text(encoding="utf-8")
            for part in name.split("."):
                if not re.search(rf"^\s*((async )?def|class) {part}\b|^{part}\b.*=", module, re.MULTILINE):
                    missing.append(f"{page.name}: {target} has no {part}")
    assert missing == []


def test_links_within_a_page_have_their_heading() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / target if target else page).read_text(encoding="utf-8")
            headings = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            }
            if anchor not in headings:
                missing.append(f"{page.name}: {target}#{anchor}")
    assert missing == []
