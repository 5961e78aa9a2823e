"""The plugin of pytest that tries faults several times and makes one table of what was measured.

Each test of a fault has the mark ``fault`` and the fixture ``trial``. What it measured goes with the report of its end, also
from the workers of pytest-xdist, to the process that prints.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import machine_facts
from tests.faults import table
from tests.faults.table import Measured
from tests.faults.trial import Trial

_PROPERTY = "fault"
_CALL_FAILED = pytest.StashKey[bool]()


@dataclass
class Gathered:
    """What the tests of this run have measured."""

    #: Test -> its try.
    tries: dict[str, Measured] = field(default_factory=dict)
    #: Tests of faults that failed, and those that were left out: name -> the fault.
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)


_GATHERED = pytest.StashKey[Gathered]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-rounds", type=int, default=1, metavar="N", help="try each fault N times")
    group.addoption("--fault-table", action="store_true", help="print the table of faults at the end")
    group.addoption("--fault-page", type=Path, metavar="PAGE", help="print the table, and put its rows into this page")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_GATHERED] = Gathered()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rounds = metafunc.config.getoption("fault_rounds")
    if rounds > 1 and "fault_round" in metafunc.fixturenames:
        metafunc.parametrize("fault_round", range(rounds), indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wrong = [
        item.nodeid
        for item in items
        if (item.get_closest_marker("fault") is None) == ("trial" in getattr(item, "fixturenames", ()))
    ]
    if wrong:
        raise pytest.UsageError(f"the mark fault and the fixture trial go together, and do not in {wrong}")


@pytest.fixture
def fault_round(request: pytest.FixtureRequest) -> int:
    """Which try of its fault this is."""
    return int(getattr(request, "param", 0))


@pytest.fixture
def at_length(request: pytest.FixtureRequest) -> bool:
    """Whether faults that last go on for as long as the table says, since there is to be one; otherwise for some seconds."""
    option = request.config.getoption
    return bool(option("fault_rounds") > 1 or option("fault_table") or option("fault_page"))


@pytest.fixture
def whole(request: pytest.FixtureRequest, fault_round: int) -> bool:
    """Whether a test that tries many steps tries all of them: in the first of several rounds."""
    return bool(request.config.getoption("fault_rounds") > 1 and fault_round == 0)


@pytest.fixture
def trial(request: pytest.FixtureRequest, fault_round: int) -> Iterator[Trial]:
    """The figures of this try; every column needs one, or a reason why it has none."""
    mark = request.node.get_closest_marker("fault")
    callspec = getattr(request.node, "callspec", None)
    made = Trial(mark.args[0].format(**(callspec.params if callspec is not None else {})), **mark.kwargs)
    yield made
    # The report of this test's end takes it along.
    request.node.user_properties.append((_PROPERTY, made.measured.as_mapping()))
    if not call_failed(request.node):
        made.check_complete()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_CALL_FAILED] = report.failed
    return report


def call_failed(item: pytest.Item) -> bool:
    """Whether the test itself has failed, so that nothing more is to be expected of its node."""
    return item.stash.get(_CALL_FAILED, False)


class Reporter:
    """In the process that prints: gathers what the tests have measured."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "fault" not in report.keywords:
            return
        if report.failed:
            self._gathered.failed.add(report.nodeid)
        if report.skipped:
            self._gathered.skipped.add(report.nodeid)
        raw: Any = dict(report.user_properties).get(_PROPERTY)
        if report.when == "teardown" and raw is not None:
            self._gathered.tries[report.nodeid] = Measured.from_mapping(raw)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Reporter(session.config.stash[_GATHERED]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    page: Path | None = config.getoption("fault_page")
    if not (page or config.getoption("fault_table")):
        return
    gathered = config.stash[_GATHERED]
    faults = table.known_faults()
    rows = table.rows_of(gathered.tries.values())
    terminalreporter.section("faults")
    terminalreporter.write_line(table.table(rows[fault] for fault in faults if fault in rows))
    for what, names in (("failed", gathered.failed), ("left out", gathered.skipped)):
        for name in sorted(names):
            terminalreporter.write_line(f"{what}: {name}")
    if page is None:
        return
    wrong = {gathered.tries[name].fault for name in gathered.failed if name in gathered.tries}
    for fault in sorted(wrong):
        terminalreporter.write_line(f"the row of {fault!r} stays as it was, since a try failed")
        del rows[fault]
    page.write_text(table.updated(page.read_text(encoding="utf-8"), rows, faults, machine()), encoding="utf-8")


def machine() -> str:
    """Where and when the faults were tried, a sentence."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"Last tried on {today.day} {today:%B %Y}: {machine_facts()['machine']}, Python {platform.python_version()}."
