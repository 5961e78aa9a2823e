"""What a scenario yields, and how it is shown: rows, the table and the JSON file. Pure but for the printing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. ``name`` may be empty where the value speaks for itself: "8,712/s", "p99 12.3 ms"."""

    value: float
    unit: str
    name: str = ""

    def __str__(self) -> str:
        gap = "" if self.unit.startswith("/") else " "
        return f"{self.name} {number(self.value)}{gap}{self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Aim:
    """What a row is held against, and whether it holds.

    ``value`` was held against ``limit``; None where there is no limit to draw. Of two aims together those of the first are kept.
    """

    text: str
    held: bool
    value: float | None = None
    limit: float | None = None

    def __and__(self, other: Aim) -> Aim:
        return replace(self, text=f"{self.text}, {other.text}", held=self.held and other.held)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ``ours`` are the node's figures, ``other`` those of the other side, which ``other_name`` names; ``ratio`` is the first of ours
    over the first of theirs. A row without ``aim`` is printed for comparison only. ``note`` says what went wrong.
    """

    what: str
    ours: Sequence[Figure]
    other: Sequence[Figure] = ()
    other_name: str = ""
    aim: Aim | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if not self.ours or not self.other or not self.other[0].value:
            return None
        return self.ours[0].value / self.other[0].value

    @property
    def aim_at(self) -> float | None:
        """Where the aim's limit is, in the unit of the first of ours; None where it is about something else.

        A limit is for the first figure itself, for the ratio, or for what ours has over the other side.
        """
        if self.aim is None or self.aim.value is None or self.aim.limit is None or not self.ours:
            return None
        value, limit = self.aim.value, self.aim.limit
        if math.isclose(value, self.ours[0].value):
            return limit
        if self.ratio is None:
            return None
        if math.isclose(value, self.ratio):
            return limit * self.other[0].value
        over = self.ours[0].value - self.other[0].value
        return self.other[0].value + limit if math.isclose(value, over) else None

    def as_json(self) -> dict[str, Any]:
        """The row for ``--json``; values that are no numbers become null."""
        return {
            "what": self.what,
            "pgnode": [_figure_json(figure) for figure in self.ours],
            "other_name": self.other_name,
            "other": [_figure_json(figure) for figure in self.other],
            "ratio": _finite(self.ratio),
            "aim": None if self.aim is None else self.aim.text,
            "held": None if self.aim is None else self.aim.held,
            "aim_value": None if self.aim is None else _finite(self.aim.value),
            "aim_limit": None if self.aim is None else self.aim.limit,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Row:
        """The row that ``as_json`` made, also one without an aim's value and limit. KeyError or TypeError for anything else."""
        aim = None
        if made["aim"] is not None:
            aim = Aim(str(made["aim"]), bool(made["held"]), made.get("aim_value"), made.get("aim_limit"))
        ours, other = ([_read_figure(figure) for figure in made[side]] for side in ("pgnode", "other"))
        return cls(str(made["what"]), ours, other, str(made["other_name"]), aim, str(made["note"]))


def number(value: float) -> str:
    """Three significant digits and more, without exponents: 8,712 · 123 · 12.3 · 1.23 · 0.123 · 0."""
    if not math.isfinite(value):
        return "?"
    size = abs(value)
    if value == int(value) or size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def at_least(ratio: float | None, limit: float, of: str) -> Aim:
    """ "≥ 0.8 of the bare app"."""
    return Aim(f"≥ {limit:g} {of}", ratio is not None and ratio >= limit, ratio, limit)


def at_most(ratio: float | None, limit: float, of: str) -> Aim:
    """ "≤ 2 times the bare core"."""
    return Aim(f"≤ {limit:g} {of}", ratio is not None and ratio <= limit, ratio, limit)


def below(value: float, limit: float, unit: str) -> Aim:
    """ "< 1 s"."""
    return Aim(f"< {limit:g} {unit}", value < limit, value, limit)


def none_of(count: float, what: str) -> Aim:
    """ "0 dropped"."""
    return Aim(f"0 {what}", count == 0)


def table(results: Mapping[str, Sequence[Row]], facts: Mapping[str, str], titles: Mapping[str, str]) -> RenderableType:
    """All rows by scenario (``titles`` has a sentence for each), with the facts of the machine above."""
    head = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        head.add_row(f"[dim]{escape(name)}[/]", escape(value))
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("what", "pgnode", "other side"):
        made.add_column(name, overflow="fold")
    made.add_column("ratio", justify="right")
    made.add_column("aim", overflow="fold")
    made.add_column("ok?", justify="center")
    for name, rows in results.items():
        made.add_section()
        made.add_row(f"[bold]{escape(name)}[/]: {escape(titles.get(name, ''))}")
        for row in rows:
            made.add_row(*_cells(row))
    return Group(head, made, summary(row for rows in results.values() for row in rows))


def read_results(content: str) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Rows by scenario, and the facts, of a file of ``--json``. ValueError for anything else."""
    try:
        made = json.loads(content)
        facts = {str(name): str(value) for name, value in made["facts"].items()}
        if "pgnode" not in facts:
            raise KeyError("pgnode")
        return {str(name): [Row.from_json(row) for row in rows] for name, rows in made["scenarios"].items()}, facts
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no results of the bench: {error!r}") from None


def beside(
    results: Mapping[str, Sequence[Row]], earlier: Mapping[str, Sequence[Row]], version: str
) -> dict[str, list[Row]]:
    """The same rows with the node's figures of an earlier result in place of the other side; the ratio is new over old."""
    figures = {(name, row.what): row.ours for name, rows in earlier.items() for row in rows}
    return {
        name: [
            Row(row.what, row.ours, before, version if before else "", row.aim, row.note)
            for row in rows
            for before in [figures.get((name, row.what), ())]
        ]
        for name, rows in results.items()
    }


def markdown(results: Mapping[str, Sequence[Row]], facts: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """The same as a page: the facts as a list, then a table for each scenario."""
    lines = [f"* {name}: {value}" for name, value in facts.items()]
    for name, rows in results.items():
        lines += ["", f"**{name}**: {titles.get(name, '')}", ""]
        lines += ["| what | pgnode | other side | ratio | aim | met |", "|---|---|---|---|---|---|"]
        for row in rows:
            *cells, note = _plain_cells(row)
            held = "" if row.aim is None else "yes" if row.aim.held else "**no**"
            cells[0] += f" ({note})" if note else ""
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, held)) + " |")
    return "\n".join(lines) + "\n"


def summary(rows: Iterable[Row]) -> str:
    """One sentence: how many aims were met, and which were not."""
    aims = [(row.what, row.aim) for row in rows if row.aim is not None]
    missed = [f"{what} (aim: {aim.text})" for what, aim in aims if not aim.held]
    if not missed:
        return f"[green]All {len(aims)} aims met.[/]" if aims else "Nothing here has an aim."
    return f"[bold red]{len(missed)} of {len(aims)} aims missed:[/] " + escape("; ".join(missed))


def _cells(row: Row) -> list[str]:
    what, *others, note = map(escape, _plain_cells(row))
    held = "" if row.aim is None else "[green]✓[/]" if row.aim.held else "[bold red]✗[/]"
    return [f"{what}\n[yellow]{note}[/]" if note else what, *others, held]


def _plain_cells(row: Row) -> list[str]:
    """What, ours, the other side, ratio, aim, note."""
    ratio = row.ratio
    other = ", ".join(map(str, row.other))
    return [
        row.what,
        ", ".join(map(str, row.ours)),
        f"{row.other_name}: {other}" if row.other_name and other else other or row.other_name,
        "" if ratio is None or not math.isfinite(ratio) else f"{ratio:.2f}",
        "" if row.aim is None else row.aim.text,
        row.note,
    ]


def _figure_json(figure: Figure) -> dict[str, Any]:
    return asdict(figure) | {"value": _finite(figure.value)}


def _read_figure(made: Mapping[str, Any]) -> Figure:
    value = made["value"]
    return Figure(math.nan if value is None else float(value), str(made["unit"]), str(made["name"]))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
