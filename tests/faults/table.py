"""The table of faults: which there are, what was measured of each, and the page that shows it. Pure but for imports.

A test of a fault has the mark ``fault`` with the fault in plain words, in which ``{name}`` stands for a parameter of the
test. It measures through a :class:`~tests.faults.trial.Trial`; ``tests/faults/plugin.py`` gathers what was measured.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "faults.md"

#: Modules elsewhere whose tests have rows, too.
OTHER_MODULES = ("tests.e2e.test_core_back", "tests.e2e.test_taken_over")

DROPPED, CHANGES, BYTES = "connections dropped", "answered changes lost", "bytes lost or twice"
LEFT, SECONDS = "left behind", "seconds"
#: What users and callers lose.
LOSSES = (DROPPED, CHANGES, BYTES)
#: What is counted, as the page calls it; seconds are measured.
COUNTS = (*LOSSES, LEFT)
COLUMNS = (*COUNTS, SECONDS)
_HEAD = ("fault", "times tried", *COUNTS, "seconds until all is well")
_DASH = "\N{EN DASH}"
_BEGIN, _END = "<!-- generated: faults -->\n", "<!-- end -->"


@dataclass
class Measured:
    """What one test of a fault came to. Goes from the processes that run tests to the one that prints as a mapping."""

    fault: str
    #: How often the fault happened in it.
    times: int = 1
    #: Column -> (how many are wrong, of how many).
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: The longest time until all was well, seconds.
    seconds: float | None = None
    #: Column -> what there is to say about its figure, or why there is none.
    notes: dict[str, str] = field(default_factory=dict)

    def as_mapping(self) -> dict[str, Any]:
        counts = {column: list(pair) for column, pair in self.counts.items()}
        return {
            "fault": self.fault,
            "times": self.times,
            "counts": counts,
            "seconds": self.seconds,
            "notes": dict(self.notes),
        }

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Measured:
        counts = {column: (int(wrong), int(of)) for column, (wrong, of) in raw["counts"].items()}
        return cls(raw["fault"], raw["times"], counts, raw["seconds"], dict(raw["notes"]))

    def missing(self) -> list[str]:
        """Columns that have neither a figure nor a reason why there is none."""
        has = {*self.counts, *self.notes, *([SECONDS] if self.seconds is not None else [])}
        return [column for column in COLUMNS if column not in has]


@dataclass(frozen=True)
class Row:
    """A line of the table: its cells after the fault, and what there is to say about some of them."""

    fault: str
    cells: tuple[str, ...]
    notes: Mapping[str, str]


def row_of(tries: Sequence[Measured]) -> Row:
    """The tries of one fault, put together."""
    cells = [str(sum(one.times for one in tries))]
    for column in COUNTS:
        pairs = [one.counts[column] for one in tries if column in one.counts]
        wrong, of = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        cells.append(f"{wrong:,} of {of:,}" if pairs else _DASH)
    seconds = [one.seconds for one in tries if one.seconds is not None]
    cells.append(f"{max(seconds):.1f}" if seconds else _DASH)
    notes: dict[str, str] = {}
    for one in tries:
        notes.update(one.notes)
    return Row(tries[0].fault, tuple(cells), notes)


def rows_of(tries: Iterable[Measured]) -> dict[str, Row]:
    """One row for each fault, by its words."""
    by_fault: dict[str, list[Measured]] = {}
    for one in tries:
        by_fault.setdefault(one.fault, []).append(one)
    return {fault: row_of(found) for fault, found in by_fault.items()}


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown, with their notes under them."""
    notes: dict[str, int] = {}
    lines = [" | ".join(_HEAD), " | ".join(["---"] * len(_HEAD))]
    for row in rows:
        cells = [row.fault.replace("|", "\\|"), row.cells[0]]
        for column, cell in zip(COLUMNS, row.cells[1:], strict=True):
            note = row.notes.get(column)
            cells.append(f"{cell} [^{notes.setdefault(note, len(notes) + 1)}]" if note else cell)
        lines.append(" | ".join(cells))
    said = [f"[^{number}]: {note}" for note, number in notes.items()]
    return "\n".join([*(f"| {line} |" for line in lines), *([""] if said else []), *said])


def rows_in(page: str) -> dict[str, Row]:
    """The rows that a page has, by their faults."""
    notes = dict(re.findall(r"^\[\^(\d+)\]: (.+)$", page, re.MULTILINE))
    found = {}
    for line in page.splitlines():
        if not line.startswith("| ") or line.startswith(("| ---", f"| {_HEAD[0]} |")):
            continue
        fault, tried, *cells = re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))
        values, said = [tried], {}
        for column, cell in zip(COLUMNS, cells, strict=True):
            value, _, mark = cell.partition(" [^")
            values.append(value)
            if mark:
                said[column] = notes[mark.rstrip("]")]
        fault = fault.replace("\\|", "|")
        found[fault] = Row(fault, tuple(values), said)
    return found


def updated(page: str, new: Mapping[str, Row], faults: Sequence[str], machine: str) -> str:
    """The page with new rows in the place of earlier ones, in the order of the tests; rows without a test go."""
    head, rest = page.split(_BEGIN)
    old, tail = rest.split(_END, 1)
    rows = rows_in(old) | dict(new)
    return f"{head}{_BEGIN}\n{machine}\n\n{table(rows[fault] for fault in faults if fault in rows)}\n\n{_END}{tail}"


def modules() -> list[str]:
    """The modules with tests of faults."""
    return [*(f"tests.faults.{path.stem}" for path in sorted(HERE.glob("test_*.py"))), *OTHER_MODULES]


def known_faults() -> list[str]:
    """The faults of all tests, in plain words."""
    return list(dict.fromkeys(fault for name in modules() for fault in faults_of(importlib.import_module(name))))


def faults_of(module: ModuleType) -> Iterator[str]:
    """The faults that the tests of a module try."""
    for name, function in vars(module).items():
        marks = getattr(function, "pytestmark", []) if name.startswith("test_") else []
        for text in (mark.args[0] for mark in marks if mark.name == "fault"):
            parameters = [_parameters(mark.args) for mark in marks if mark.name == "parametrize"]
            for chosen in itertools.product(*parameters):
                yield text.format(**{name: value for one in chosen for name, value in one.items()})


def _parameters(arguments: Sequence[Any]) -> list[dict[str, Any]]:
    """What a mark ``parametrize`` passes to each of its tests."""
    names, values = arguments[0], arguments[1]
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    found = []
    for value in values:
        plain = getattr(value, "values", value) if hasattr(value, "marks") else value
        single = len(names) == 1 and plain is value
        found.append(dict(zip(names, [plain] if single else plain, strict=True)))
    return found


def without_a_row(module: ModuleType) -> list[str]:
    """Tests of a node in the module that have no row."""
    return [
        name
        for name, function in vars(module).items()
        if name.startswith("test_")
        and inspect.iscoroutinefunction(function)
        and not any(mark.name == "fault" for mark in getattr(function, "pytestmark", []))
    ]
