"""A process that was forked before becomes a program, and nothing tells it from one that was started."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pgnode.os_support import oom_score, pdeath, prepared, shown_words
from pgnode.testing.processes import is_running
from tests.support.polling import eventually

#: Says all that a program can know of how it was started.
_SAYS = r"""
import ctypes, json, os, signal, sys
from pathlib import Path

def proc(name):
    return Path("/proc/self", name).read_bytes().decode(errors="surrogateescape")

libc, death = ctypes.CDLL(None), ctypes.c_int()
libc.prctl(2, ctypes.byref(death))
umask = os.umask(0)
status = dict(line.split(":", 1) for line in proc("status").splitlines())
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "leads": os.getsid(0) == os.getpgrp() == os.getpid(),
    "name": __name__, "main": sys.modules["__main__"].__name__, "argv": sys.argv, "orig_argv": sys.orig_argv,
    "path": sys.path[0], "cmdline": proc("cmdline").split("\0"), "environ": sorted(proc("environ").split("\0")),
    "variables": dict(os.environ), "umask": umask, "death": death.value,
    "blocked": status["SigBlk"].strip(), "ignored": status["SigIgn"].strip(), "threads": status["Threads"].strip(),
    "comm": status["Name"].strip(), "score": proc("oom_score_adj").strip(), "folder": os.getcwd(),
    "input": os.readlink("/proc/self/fd/0"), "same": os.fstat(1) == os.fstat(2),
    "given": [os.read(int(n), 3).decode() for n in os.environ["GIVEN"].split(",")],
    "inheritable": [os.get_inheritable(int(n)) for n in os.environ["GIVEN"].split(",")],
    "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
}), flush=True)
sys.stdin.read()
sys.exit(int(sys.argv[1]))
"""

#: Starts that program both ways, with secrets of its own and signals that it holds back.
_PARENT = r"""
import json, os, signal, subprocess, sys
from pgnode.os_support import lean_start, pdeath, prepared
from pgnode.os_support.limits import allow_many_files
from pgnode.os_support.request_signals import kept_from_children

lean_start.begin()
os.umask(0o077)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
secret = os.open("/dev/null", os.O_RDONLY)
program = prepared.prepare(1, {})
if program is not None:
    sys.exit(program.run())
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
allow_many_files()
assert len(prepared.pids()) == 1
given = []
for content in (b"one", b"two"):
    reader, writer = os.pipe()
    os.write(writer, content * 2)
    given.append(reader)
command = [sys.executable, "-m", "says", "3"]
environment = {"PATH": os.environ["PATH"], "GIVEN": ",".join(map(str, given)), "ODD": "\udcff \n", "PYTHONPATH": "."}
found = []
for way in ("prepared", "started"):
    reader, writer = os.pipe()
    if way == "prepared":
        one = prepared.take()
        one.become(command, environment, writer, given, 7)
        pid = one.pid
    else:
        with kept_from_children():
            process = subprocess.Popen(pdeath.command(command, 7), stdin=subprocess.DEVNULL, stdout=writer, stderr=writer,
                                       env=environment, start_new_session=True, pass_fds=given)
        pid, process.returncode = process.pid, 0
    os.close(writer)
    with open(reader) as said:
        facts = json.loads(said.readline())
        facts["rest"] = said.read()
    assert facts.pop("pid") == pid
    facts["code"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found.append(facts)
assert prepared.take() is None
print(json.dumps(found))
"""


def _run(code: str, folder: Path, **environment: str) -> str:
    (folder / "says.py").write_text(_SAYS)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "SECRET": "hidden", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_it_is_what_it_would_be_if_it_had_been_started(tmp_path: Path) -> None:
    both: list[dict[str, Any]] = json.loads(_run(_PARENT, tmp_path))
    one, other = both
    assert one["code"] == 3
    assert one["leads"]
    assert one["cmdline"][-4:] == ["-m", "says", "3", ""]
    assert one["variables"]["ODD"] == "\udcff \n"
    assert "SECRET=hidden" not in one["environ"]
    assert one["death"] == signal.SIGKILL
    # What the interpreter makes of the language of its environment is another matter: it was asked at its start.
    for facts in both:
        for name in ("LC_CTYPE",):
            facts["variables"].pop(name, None)
            facts["environ"] = [each for each in facts["environ"] if not each.startswith(name)]
    assert one == other


#: Its program is one that the system cannot show.
_UNSHOWN = _PARENT.replace(
    "program = prepared.prepare",
    "from pgnode.os_support import shown_words\n"
    "def refuse(*_): raise OSError('not known')\n"
    "shown_words.show = refuse\n"
    "program = prepared.prepare",
)


def test_where_the_system_cannot_show_what_it_is_it_is_started(tmp_path: Path) -> None:
    one, other = json.loads(_run(_UNSHOWN, tmp_path))
    assert one["code"] == 3
    assert one == other


#: Says the pids of those that wait, and ends as it is told.
_WAITING = """
import os, signal, sys
from pgnode.os_support import oom_score, pdeath, prepared, shown_words
program = prepared.prepare(2, {})
assert program is None
print(*prepared.pids(), flush=True)
if sys.argv[1:] == ["dismiss"]:
    prepared.dismiss()
    assert not prepared.pids()
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("none", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("arguments", [[], ["dismiss"]])
async def test_those_that_wait_end_with_their_parent_or_before(arguments: list[str]) -> None:
    command = [sys.executable, "-c", _WAITING, *arguments]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids, *rest = ended.stdout.splitlines()
    assert rest == (["none"] if arguments else [])
    assert len(pids.split()) == 2
    await eventually(lambda: not any(is_running(int(pid)) for pid in pids.split()), "they have ended")


#: Tells one that was killed what to become.
_KILLED = """
import os, signal, sys
from pgnode.os_support import oom_score, pdeath, prepared, shown_words
prepared.prepare(1, {})
one = prepared.take()
os.kill(one.pid, signal.SIGKILL)
os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
try:
    one.become([sys.executable, "-m", "says"], {}, 1)
except OSError:
    print("refused")
"""


def test_one_that_has_ended_becomes_nothing(tmp_path: Path) -> None:
    assert _run(_KILLED, tmp_path) == "refused\n"


def test_none_is_made_where_it_would_be_another_interpreter() -> None:
    assert prepared.prepare(1, {"PYTHONWARNINGS": "error"}) is None
    assert not prepared.pids()


def test_none_is_made_beside_a_thread() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert prepared.prepare(1, {}) is None
        assert not prepared.pids()
    finally:
        done.set()
        thread.join()


# --- the same in this process, where nothing of it may happen for good ------------------------------------------------------


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would make this process another one is noted here, and not done."""
    noted: list[tuple[Any, ...]] = []

    def note(owner: object, name: str) -> None:
        def instead(*given: Any, **_named: Any) -> None:
            noted.append((name, *given))

        monkeypatch.setattr(owner, name, instead)

    for owner, names in (
        (os, ("setsid", "umask", "kill", "waitpid", "execve")),
        (signal, ("pthread_sigmask",)),
        (gc, ("freeze",)),
        (pdeath, ("die_with_parent",)),
        (shown_words, ("show",)),
        (oom_score, ("write_score", "raise_own")),
        (runpy, ("run_module",)),
        (prepared, ("allow_many_files",)),
    ):
        for name in names:
            note(owner, name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    for name in ("argv", "orig_argv", "path"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    return noted


def test_an_order_arrives_as_it_was_given(monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]) -> None:
    placed: dict[int, int] = {}
    monkeypatch.setattr(prepared, "_close_all_but", lambda kept: done.append(("close", kept)))
    monkeypatch.setattr(prepared, "_place", placed.update)
    near, far = socket.socketpair()
    kept, given = far.fileno(), os.open(os.devnull, os.O_RDONLY)
    prepared.Prepared(4711, near).become([sys.executable, "-m", "some.module", "1"], {"A": "1"}, given, (given,), 7)
    program = prepared._wait(far, 77)
    assert program == prepared.Program(pdeath.command([sys.executable, "-m", "some.module", "1"], 7), {"A": "1"})
    assert dict(os.environ) == {"A": "1"}
    assert sorted(placed) == [0, 1, 2, given]
    assert all(os.fstat(number) == os.fstat(given) for number in placed.values())
    for number in {*placed.values(), given}:
        os.close(number)
    score = oom_score.read_score()
    assert [one for one in done if one[0] != "pthread_sigmask"] == [
        ("setsid",),
        ("die_with_parent",),
        ("close", kept),
        ("allow_many_files",),
        ("write_score", "self", score),
        ("umask", 0o077),
    ]
    done.clear()
    assert program.run() == 0
    assert done == [("show", program.words, {"A": "1"}), ("raise_own", 7), ("run_module", "some.module")]
    assert sys.argv == ["some.module", "1"]
    assert sys.path[0] == str(Path.cwd())


def test_one_that_cannot_be_shown_is_started(monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not known")

    monkeypatch.setattr(shown_words, "show", refuse)
    words = pdeath.command([sys.executable, "-m", "some.module"], 7)
    prepared.Program(words, {"A": "1"}).run()
    assert done[0] == ("execve", sys.executable, words, {"A": "1"})


def test_one_that_is_gone_is_reaped(monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]) -> None:
    def refuse() -> int:
        raise OSError("no such file")

    monkeypatch.setattr(oom_score, "read_score", refuse)
    near, far = socket.socketpair()
    far.close()
    with pytest.raises(OSError, match="Broken pipe"):
        prepared.Prepared(4711, near).become([sys.executable, "-m", "some.module"], {}, 1)
    assert done == [("kill", 4711, signal.SIGKILL), ("waitpid", 4711, 0)]


def test_as_many_are_made_as_can_be_had(monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]) -> None:
    answers: list[int | OSError] = [4711, OSError("no process")]

    def fork() -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def refuse() -> None:
        raise OSError("no descriptor")

    monkeypatch.setattr(os, "fork", fork)
    assert prepared.prepare(3, {}) is None
    assert prepared.pids() == {4711}
    assert ("freeze",) in done
    prepared.dismiss()
    assert done[-2:] == [("kill", 4711, signal.SIGKILL), ("waitpid", 4711, 0)]
    assert not prepared.pids()
    told = prepared.Program(["x"], {})
    answers.append(0)
    monkeypatch.setattr(prepared, "_wait", lambda channel, _parent: (channel.close(), told)[1])
    # It keeps nothing open that is its parent's.
    assert prepared.prepare(1, {}) is told
    monkeypatch.setattr(socket, "socketpair", refuse)
    assert prepared.prepare(1, {}) is None


def test_descriptors_change_places(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    placed: list[tuple[int, int]] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", lambda _: ["0", "1", "2", "5", "7", "9"])
        patched.setattr(fcntl, "fcntl", lambda held, _order, beyond: held + beyond)
        patched.setattr(os, "dup2", lambda held, number, **_: placed.append((held, number)))
        patched.setattr(os, "close", closed.append)
        prepared._close_all_but(7)
        assert closed == [5, 9]
        closed.clear()
        prepared._place({0: 5, 1: 7, 2: 7, 7: 9})
    # Seven is wanted and held.
    assert placed == [(15, 0), (17, 1), (17, 2), (19, 7)]
    assert closed == [5, 9]
