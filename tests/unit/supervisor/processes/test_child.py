"""One child, as a real small process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.errors import ChildFailedError
from pgnode.os_support import prepared
from pgnode.supervisor.processes.child import Attached, Child, ChildSpec
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.testing.processes import is_running
from tests.support.polling import eventually, pause

#: Says that it is there, and waits for its end.
WAITS = "import os, pathlib, signal, sys; print('up', flush=True); pathlib.Path(sys.argv[1]).touch(); signal.pause()"
#: The same, deaf to SIGTERM, with a child of its own whose pid it writes.
STUBBORN = (
    "import os, pathlib, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); pid = os.fork();\n"
    "if pid: pathlib.Path(sys.argv[1] + '.pid').write_text(str(pid)); pathlib.Path(sys.argv[1]).touch()\n"
    "while True: signal.pause()"
)


class Children:
    """Makes children that are ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids = PidRegistry(folder / "children.json")
        self.made: list[Child] = []

    def make(self, code: str, ready: Callable[[], Awaitable[None]] | None = None, **options: Any) -> Child:
        flag = self.folder / "up"

        async def is_up() -> None:
            await eventually(flag.exists, "the process is up")

        limits = {name: options.pop(name) for name in ("ready_seconds", "stop_seconds") if name in options}
        command = [sys.executable, "-S", "-c", code, str(flag)]
        spec = ChildSpec("small", command, dict(os.environ), ready=ready or is_up, **options)
        self.made.append(Child(spec, self.pids, **limits))
        return self.made[-1]


@pytest_asyncio.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    found = Children(tmp_path)
    yield found
    await asyncio.gather(*(child.stop() for child in found.made))


async def never() -> None:
    await asyncio.Event().wait()


async def test_it_is_started_and_ended(children: Children, capsys: pytest.CaptureFixture[str]) -> None:
    prepared: list[bool] = []
    child = children.make(WAITS, prepare=lambda: prepared.append(True))
    assert repr(child) == "Child(small, pid None)"
    child.signal(signal.SIGTERM)
    child.kill_group()
    await child.stop()
    await child.start()
    assert prepared == [True]
    pid = child.pid
    assert pid is not None
    assert os.getsid(pid) == pid
    assert str(pid) in repr(child)
    assert str(pid) in (children.folder / "children.json").read_text()
    await eventually(lambda: child.last_lines == ["up"], "its output is there")
    assert "up" in capsys.readouterr().err
    await child.stop()
    assert repr(child) == "Child(small, pid None)"
    assert not is_running(pid)
    assert json.loads((children.folder / "children.json").read_text())["children"] == {}


async def test_its_end_is_told(children: Children) -> None:
    child = children.make(WAITS, quiet=True)
    await child.start()
    child.signal(signal.SIGKILL)
    assert await child.ended() == "exit code -9"
    assert await child.wait() == -9
    child.signal(signal.SIGTERM)


async def test_it_can_be_started_again(children: Children) -> None:
    child = children.make(WAITS)
    await child.start()
    child.kill_group()
    await child.wait()
    await child.start()
    assert child.pid is not None


async def test_one_that_ends_while_starting_says_its_last_lines(children: Children) -> None:
    child = children.make("print('first'); print('no such file'); raise SystemExit(7)", ready=never)
    with pytest.raises(ChildFailedError, match=r"exit code 7 while starting\nfirst\nno such file"):
        await child.start()
    assert child.pid is None


async def test_one_that_is_not_ready_in_time_is_ended(children: Children) -> None:
    child = children.make(WAITS, ready=never, ready_seconds=0.2)
    with pytest.raises(ChildFailedError, match=r"not ready within 0\.2 s"):
        await child.start()
    assert child.pid is None


async def test_one_that_cannot_be_reached_is_ended(children: Children) -> None:
    async def fails() -> None:
        raise OSError("no route")

    child = children.make(WAITS, ready=fails)
    with pytest.raises(ChildFailedError, match="cannot be reached: no route"):
        await child.start()
    assert child.pid is None


async def test_errors_of_the_system_are_told_as_its_own(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ChildFailedError, match=r"cannot be started: .*No space left"):
        await children.make(WAITS, prepare=no_room).start()

    def no_memory(*_: Any, **__: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    with pytest.raises(ChildFailedError, match=r"cannot be started: .*Cannot allocate memory"):
        await children.make(WAITS).start()


async def test_one_that_does_not_obey_is_killed_with_what_it_started(children: Children) -> None:
    child = children.make(STUBBORN, stop_seconds=0.2)
    await child.start()
    grandchild = int((children.folder / "up.pid").read_text())
    assert is_running(grandchild)
    await child.stop()
    await eventually(lambda: not is_running(grandchild), "what it started has gone, too")


async def test_a_line_that_is_too_long_is_left_out(children: Children) -> None:
    child = children.make("print('x' * 3_000_000); print('end'); raise SystemExit(1)", ready=never, quiet=True)
    with pytest.raises(ChildFailedError, match=r"end$"):
        await child.start()


async def test_it_goes_on_under_the_next_supervisor(children: Children) -> None:
    first = children.make(WAITS)
    await first.start()
    await eventually(lambda: first.last_lines == ["up"], "its output is there")
    left = first.hand_over(channel=5)
    assert left is not None
    assert (left.name, left.channel, left.command) == ("small", 5, first.command)
    assert first.pid is None
    assert first.hand_over() is None
    second = children.make(WAITS)
    assert await second.take_over_or_end(left)
    assert second.pid == left.pid
    second.signal(signal.SIGKILL)
    assert await second.ended() == "exit code -9"


async def test_one_that_would_run_something_else_is_ended(children: Children) -> None:
    first = children.make(WAITS)
    await first.start()
    left = first.hand_over()
    assert left is not None
    second = children.make(WAITS.replace("up", "down"))
    assert not await second.take_over_or_end(left)
    assert second.pid is None
    assert not is_running(left.pid)
    assert not await second.take_over_or_end(None)


async def test_one_that_has_ended_meanwhile_is_not_taken_over(children: Children) -> None:
    first = children.make(WAITS)
    await first.start()
    left = first.hand_over()
    assert left is not None
    os.kill(left.pid, signal.SIGKILL)
    await eventually(lambda: not is_running(left.pid), "it has ended")
    assert not children.make(WAITS).take_over(left), "it is reaped"
    assert not children.make(WAITS).take_over(replace(left, output=-1)), "it is not there"


async def test_it_is_renewed(children: Children) -> None:
    child = children.make(WAITS)
    await child.start()
    before = child.pid
    assert before is not None
    await child.renew()
    assert child.pid not in (None, before)
    assert not is_running(before)
    assert str(child.pid) in (children.folder / "children.json").read_text()


async def test_one_that_is_renewed_has_longer_to_end_than_one_that_is_stopped(children: Children) -> None:
    go = children.folder / "go"
    code = f"""import os, pathlib, signal, sys, time
def end(*_):
    while not os.path.exists({str(go)!r}): time.sleep(0.01)
    raise SystemExit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1]).touch()
while True: signal.pause()
"""
    child = children.make(code, stop_seconds=0.0)
    await child.start()
    before = child.pid
    assert before is not None
    renewing = asyncio.create_task(child.renew())
    await eventually(lambda: child.pid not in (None, before), "the other one is there")
    await pause()
    assert is_running(before)
    assert not renewing.done()
    go.touch()
    await renewing
    assert not is_running(before)


async def test_one_whose_successor_does_not_come_up_goes_on(children: Children) -> None:
    flag = children.folder / "fails"
    child = children.make(f"import os\nif os.path.exists({str(flag)!r}): raise SystemExit(3)\n{WAITS}")
    await child.start()
    before = child.pid
    flag.touch()
    (children.folder / "up").unlink()
    with pytest.raises(ChildFailedError, match="exit code 3"):
        await child.renew()
    assert child.pid == before


async def test_what_is_attached_is_inherited(children: Children) -> None:
    reader, writer = os.pipe()
    code = f"import os; os.write(int(os.environ['END']), b'here'); {WAITS}"
    child = children.make(code, attach=lambda: Attached({"END": str(writer)}, (writer,)))
    await child.start()
    os.close(writer)
    assert os.read(reader, 10) == b"here"
    os.close(reader)


async def test_one_that_cannot_be_watched_is_ended(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_pid: int) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pgnode.supervisor.processes.child.OwnProcess", full)
    with pytest.raises(ChildFailedError, match="Too many open files"):
        await children.make(WAITS).start()


class Waiting:
    """One that was prepared: it is there, and notes what it is told."""

    def __init__(self, error: OSError | None = None) -> None:
        self.process = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
        self.error = error
        self.told: list[tuple[Any, ...]] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    def become(self, *order: Any) -> None:
        if self.error is not None:
            self.process.kill()
            self.process.wait()
            raise self.error
        # Another object waits for its end.
        self.process.returncode = 0
        self.told.append(order)


async def test_a_process_that_was_prepared_becomes_a_module(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting()
    monkeypatch.setattr(prepared, "take", lambda: waiting)

    async def ready() -> None:
        """Nothing has to be waited for."""

    number = os.open(os.devnull, os.O_RDONLY)
    spec = ChildSpec(
        "small", [sys.executable, "-m", "some.module", "1"], {"A": "1"}, ready, pass_fds=(number,), oom_points=7
    )
    child = Child(spec, children.pids)
    children.made.append(child)
    await child.start()
    os.close(number)
    assert child.pid == waiting.pid
    [(command, environment, _output, descriptors, points)] = waiting.told
    assert (command, environment) == (spec.command, {"A": "1"})
    assert (descriptors, points) == ((number,), 7)
    await child.stop()
    assert not is_running(waiting.pid)


async def test_where_it_cannot_become_that_the_module_is_started(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting(BrokenPipeError())
    monkeypatch.setattr(prepared, "take", lambda: waiting)
    (tmp_path / "waits.py").write_text(WAITS)

    async def is_up() -> None:
        await eventually((tmp_path / "up").exists, "the process is up")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = Child(
        ChildSpec("small", [sys.executable, "-m", "waits", str(tmp_path / "up")], environment, is_up), children.pids
    )
    children.made.append(child)
    await child.start()
    assert child.pid not in (None, waiting.pid)


async def test_a_program_that_is_no_module_is_started(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> None:
        raise AssertionError("it is for modules")

    monkeypatch.setattr(prepared, "take", taken)
    child = children.make(WAITS)
    await child.start()
    assert child.pid is not None
