"""Settings for all tests, and how they run side by side (``pytest -n 2``; unit tests: tests/support/side_by_side.py).

Where the machine allows it, every worker has a network of its own, so that no two tests meet on a port. Elsewhere the
workers share the ports out, and modules that use ports of the samples run in one worker.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import CERTIFICATES_VARIABLE, launch_nodes_with
from pgnode.testing.ports import PORTS, PORTS_VARIABLE
from tests.support import isolated_python, made_folders, once, ready_nodes
from tests.support.groups import group_of

# How long an example takes says something about the machine, not about the code.
settings.register_profile("pgnode", deadline=None, max_examples=30)
# For a change of what they test: pytest --hypothesis-profile=thorough …
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("pgnode")

# As the node itself does: tracebacks with every local variable take seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

made_folders.begin()
once.begin()

# Nodes that tests start find one, unless the test is about the first start.
os.environ[CERTIFICATES_VARIABLE] = "made"

# And they need not start Python twice.
launch_nodes_with(ready_nodes.Launcher())

# A shell that starts the tests in its background has them and their children ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent

#: Tests of faults fill the rows of one table; unit tests run in forks.
pytest_plugins = ["tests.faults.plugin", "tests.support.side_by_side"]

#: Said to the workers: whether they have networks of their own.
ISOLATED = "PGNODE_TESTS_ISOLATED"

#: Folders, those with the longest modules first.
SLOW_FIRST = ("faults", "e2e", "panel", "integration", "bench", "fuzz")


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist a network of its own, where that is possible."""
    if not getattr(config.option, "tx", None):
        return
    possible = isolated_python.is_possible()
    os.environ[ISOLATED] = "1" if possible else ""
    if possible:
        command = [sys.executable, isolated_python.__file__]
        config.option.tx = [
            f"popen//python={' '.join(command)}" if spec == "popen" else spec for spec in config.option.tx
        ]


def pytest_configure(config: pytest.Config) -> None:
    """Workers in one network each have their own share of the ports."""
    worker: dict[str, object] | None = getattr(config, "workerinput", None)
    if worker is None or os.environ.get(ISOLATED):
        return
    number, count = int(str(worker["workerid"]).removeprefix("gw")), int(str(worker["workercount"]))
    share = len(PORTS) // count
    first = PORTS.start + number * share
    os.environ[PORTS_VARIABLE] = f"{first}-{first + share - 1}"


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Hands the tests of a module to one worker, since many share a node or a core."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid, isolated=bool(os.environ.get(ISOLATED)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByModule:
    """Let pytest-xdist hand out modules, in the order of :func:`pytest_collection_modifyitems`."""
    config.option.loadscopereorder = False
    return ByModule(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules of all tests: it would walk through them again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Fail the last test of a process in which folders were left behind."""
    result = yield
    if nextitem is None and (left := made_folders.left_behind()):
        pytest.fail("\n".join(left), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the processes of its fixtures printed."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            for said in (getattr(value, "output_text", None), getattr(value, "output", None)):
                if isinstance(said, str):
                    report.sections.append((f"output of {name}", said))
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow folders first, so that no worker is left alone with one at the end."""
    order = {name: number for number, name in enumerate(SLOW_FIRST)}

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(HERE).parts[0] if HERE in item.path.parents else ""
        return order.get(folder, len(order))

    items.sort(key=place)


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[ArmedFaults]:
    """Fault points for processes that this test starts; what waits at one goes on when the test ends."""
    armed = ArmedFaults(tmp_path / "fault-points")
    yield armed
    armed.let_all_go()
