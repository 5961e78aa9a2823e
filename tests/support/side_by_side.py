"""Run tests side by side in forks of this process: ``pytest --forks 3``.

To import a node and to collect its tests takes longer than many of them do. Here it happens once, before the forks; each of
those then asks for one module after the other, and sends the reports of its tests to this process, which counts and prints.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from pgnode.testing.ports import PORTS, PORTS_VARIABLE
from tests.support import isolated_python
from tests.support.groups import group_of

#: Exit code of a fork in which something other than a test failed.
_BROKEN = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("side by side").addoption(
        "--forks",
        type=int,
        default=1,
        metavar="N",
        help="run N modules of tests at a time, each in a fork of this process",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests, if this is how; collection went wrong or nothing is to be run otherwise."""
    option = session.config.option
    if option.forks < 2 or option.collectonly or session.testsfailed:
        return None
    isolated = isolated_python.is_possible()
    by_name: dict[str, list[pytest.Item]] = {}
    for item in session.items:
        by_name.setdefault(group_of(item.nodeid, isolated=isolated), []).append(item)
    groups = list(by_name.values())
    _try_a_text()
    _Crew(session, groups, min(option.forks, len(groups)), isolated=isolated).run()
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
    return True


@settings(max_examples=1, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.text())
def _try_a_text(_text: str) -> None:
    """Have Hypothesis make its table of all characters before the forks: where it kept none that takes a second or two."""


def _folders(session: pytest.Session) -> pytest.TempPathFactory:
    """What makes the folders of tests."""
    found: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined] # nothing public hands it out
    return found


class _Fork:
    """One of them, as this process sees it."""

    def __init__(self, number: int, pid: int, connection: Connection) -> None:
        #: From 0 on; where it ended early, the one in its place has the same.
        self.number = number
        self.connection = connection
        #: The test that it has begun last: nodeid and location.
        self.at: tuple[str, Any] | None = None
        self.pid = pid
        # Who runs in a fork may have forks of its own that keep the connection open: its end is seen here.
        self.end = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Whether nothing comes any more."""
        return bool(select.select([self.end], [], [], 0)[0])


class _Crew:
    """All of them."""

    def __init__(
        self, session: pytest.Session, groups: Sequence[list[pytest.Item]], size: int, *, isolated: bool
    ) -> None:
        self._session = session
        self._groups = groups
        self._left = deque(range(len(groups)))
        self._size = size
        self._isolated = isolated
        self._forks: list[_Fork] = []

    def run(self) -> None:
        """Return when all have ended."""
        # Made here, and removed here.
        _folders(self._session).getbasetemp()
        try:
            for number in range(self._size):
                self._start(number)
            while self._forks:
                wait([end for fork in self._forks for end in (fork.connection, fork.end)])
                for fork in list(self._forks):
                    self._hear(fork)
        finally:
            for fork in self._forks:
                os.kill(fork.pid, signal.SIGINT)
            for fork in self._forks:
                os.waitpid(fork.pid, 0)

    def _start(self, number: int) -> None:
        here, there = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = _BROKEN
            try:
                here.close()
                for fork in self._forks:
                    fork.connection.close()
                    os.close(fork.end)
                self._settle(number)
                _Runner(self._session, self._groups, there).run()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        there.close()
        self._forks.append(_Fork(number, pid, here))

    def _settle(self, number: int) -> None:
        """In the fork: have a folder of its own, and a network, or a share of the ports of this one."""
        folders = _folders(self._session)
        folders._basetemp = folders.getbasetemp() / f"fork{number}"
        folders._basetemp.mkdir(exist_ok=True)
        # What earlier runs left is removed by one process: two are in each other's way.
        folders._exit_stack.pop_all()
        if self._isolated:
            isolated_python.isolate()
            return
        share = len(PORTS) // self._size
        first = PORTS.start + number * share
        os.environ[PORTS_VARIABLE] = f"{first}-{first + share - 1}"

    def _hear(self, fork: _Fork) -> None:
        ended = fork.has_ended()
        try:
            while fork.connection.poll():
                self._take(fork, *fork.connection.recv())
        except (EOFError, ConnectionError):
            pass  # its end is seen as well
        if ended:
            self._part(fork)

    def _take(self, fork: _Fork, what: str, *about: Any) -> None:
        hook = self._session.config.hook
        if what == "wants":
            stop = self._session.shouldfail or self._session.shouldstop
            fork.connection.send(self._left.popleft() if self._left and not stop else None)
        elif what == "begins":
            fork.at = about[0], about[1]
        elif what == "reports":
            for data in about[0]:
                report = hook.pytest_report_from_serializable(config=self._session.config, data=data)
                hook.pytest_runtest_logreport(report=report)
            assert fork.at is not None
            hook.pytest_runtest_logfinish(nodeid=fork.at[0], location=fork.at[1])

    def _part(self, fork: _Fork) -> None:
        """Take note of its end; where it did not come to the end of its tests, that is a failure, and another takes its place."""
        self._forks.remove(fork)
        fork.connection.close()
        os.close(fork.end)
        code = os.waitstatus_to_exitcode(os.waitpid(fork.pid, 0)[1])
        if code == 0:
            return
        nodeid, location = fork.at or ("before any test", ("", None, ""))
        self._session.config.hook.pytest_runtest_logreport(
            report=pytest.TestReport(
                nodeid=nodeid,
                location=location,
                keywords={},
                outcome="failed",
                longrepr=f"the process that ran it ended with {code}; what came after it in its module was not run",
                when="call",
            )
        )
        if self._left and fork.at is not None:
            self._start(fork.number)


class _Runner:
    """In a fork: runs tests, and says what came of them."""

    def __init__(self, session: pytest.Session, groups: Sequence[list[pytest.Item]], connection: Connection) -> None:
        self._session = session
        self._groups = groups
        self._connection = connection
        self._reports: list[dict[str, Any]] = []
        manager = session.config.pluginmanager
        manager.unregister(name="terminalreporter")
        self._measuring: Any = manager.unregister(name="_cov") if manager.has_plugin("_cov") else None
        manager.register(self)
        # What tests print must not go into the file that all forks have from their parent.
        capture: Any = manager.getplugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()

    def run(self) -> None:
        """Run all that is handed out."""
        config = self._session.config
        for item, following in pairwise(chain(self._items(), [None])):
            assert item is not None
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._session.shouldfail or self._session.shouldstop:
                break
        config.hook.pytest_sessionfinish(session=self._session, exitstatus=0)
        if self._measuring is not None:
            measured = self._measuring.cov_controller.cov
            measured.stop()
            measured.save()
        atexit._run_exitfuncs()

    def _items(self) -> Iterator[pytest.Item]:
        while True:
            self._connection.send(("wants",))
            number = self._connection.recv()
            if number is None:
                return
            yield from self._groups[number]

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._connection.send(("begins", nodeid, location))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self._session.config
        self._reports.append(config.hook.pytest_report_to_serializable(config=config, report=report))

    def pytest_runtest_logfinish(self) -> None:
        self._connection.send(("reports", self._reports))
        self._reports = []
