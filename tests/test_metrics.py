"""Metrics by name: code, page, dashboard, alerts and recording rules say the same; and Prometheus's own tool agrees."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.metrics.catalogue import FAMILIES
from pgnode.metrics.exposition import render
from tests.generated_docs import METRICS, ROOT
from tests.unit.metrics.test_exposition import everything

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "pgnode.json"

#: Every series, with the labels that it may have.
SERIES = {
    name: {label.name for label in family.labels} | ({"le"} if name.endswith("_bucket") else set())
    for family in FAMILIES
    for name in family.series_names
}
#: What Prometheus adds to each.
TARGET_LABELS = {"job", "instance"}

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus)")


def expressions() -> Iterator[tuple[str, str]]:
    """Where an expression stands, and the expression."""

    def within(panels: list[dict[str, object]]) -> Iterator[dict[str, object]]:
        for panel in panels:
            yield panel
            nested = panel.get("panels")
            yield from within(nested if isinstance(nested, list) else [])

    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in within(dashboard["panels"]):
        targets = panel.get("targets")
        for target in targets if isinstance(targets, list) else []:
            yield f"panel {panel['title']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield "annotations", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if isinstance(variable["query"], dict):
            yield "variables", variable["query"]["query"]
    for path in sorted(RULES.glob("*.yml")):
        text = re.sub(
            r"^ *(#.*|- alert: .*|annotations: .*)$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        yield path.name, text


@pytest.mark.parametrize(("place", "text"), list(expressions()))
def test_what_is_named_exists_and_has_the_labels_it_is_asked_for(place: str, text: str) -> None:
    for name, selector in re.findall(r"\b(pgnode_[a-z_]+)(\{[^}]*\})?", text):
        assert name in SERIES, f"{place}: there is no {name}"
        asked = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))
        assert asked <= SERIES[name] | TARGET_LABELS, f"{place}: {name} has no label {asked - SERIES[name]}"


def test_the_dashboard_tells_most_of_it_and_no_panel_twice() -> None:
    named = {name for _, text in expressions() for name in re.findall(r"\bpgnode_[a-z_]+", text)}
    told = [family for family in FAMILIES if named & set(family.series_names)]
    assert len(told) > 0.6 * len(FAMILIES)
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    ids = [panel["id"] for panel in panels]
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(ids)) == len(ids)
    assert len(set(places)) == len(places)


def test_every_alert_has_a_test() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (RULES / "alerts.yml").read_text(encoding="utf-8")))
    tested = set(re.findall(r"alertname: (\w+)", (RULES / "alerts_test.yml").read_text(encoding="utf-8")))
    assert alerts == tested


def test_the_page_has_every_metric() -> None:
    page = METRICS.read_text(encoding="utf-8")
    assert [name for family in FAMILIES if f"| `{(name := family.full_name)}` |" not in page] == []


def promtool(*arguments: str, text: bytes = b"") -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert not done.stderr, done.stderr.decode()


@needs_promtool
def test_promtool_has_no_complaint_about_the_metrics() -> None:
    promtool("check", "metrics", text=render(everything(), "")[1])


@needs_promtool
@pytest.mark.parametrize("path", sorted(RULES.glob("*.yml")), ids=lambda path: path.name)
def test_promtool_takes_the_rules(path: Path) -> None:
    if path.name.endswith("_test.yml"):
        promtool("test", "rules", str(path))
    elif path.name == "scrape.yml":
        # The files that it names are the operator's.
        promtool("check", "config", "--syntax-only", str(path))
    else:
        promtool("check", "rules", str(path))
