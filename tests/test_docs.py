"""The generated pages say what the code says, and links between pages lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from pgnode.cli import main
from tests.generated_docs import MANUAL, ROOT, pages


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


def test_nothing_stands_on_a_page_twice() -> None:
    """A chapter or a paragraph that an edit left behind says what was true once."""
    twice = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        chapters = re.findall(r"^##? .+$", text, re.MULTILINE)
        paragraphs = [paragraph for paragraph in text.split("\n\n") if len(paragraph) > 100]
        for parts in (chapters, paragraphs):
            twice += [f"{page.name}: {part[:80]}" for part in set(parts) if parts.count(part) > 1]
    assert twice == []


def test_the_manual_has_every_command() -> None:
    text = MANUAL.read_text(encoding="utf-8").replace("\\-", "-")
    for name, command in main.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        for words, one in inner.items():
            assert f"\n.SS {f'pgnode {name} {words}'.strip()} " in text
            for option in (opt for parameter in one.params for opt in parameter.opts if opt.startswith("--")):
                assert f".B {option}" in text or f", {option}" in text or f" / {option}" in text, f"{name} {option}"


def test_the_manual_can_be_read() -> None:
    program = shutil.which("groff")
    if program is None:
        pytest.skip("groff is not on this machine")
    shown = subprocess.run(
        [program, "-man", "-Tutf8", "-ww", str(MANUAL)], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stderr == ""
    assert re.search(r"pgnode restore .*FILE", re.sub(r".\x08|\x1b\[\d+m", "", shown.stdout))
