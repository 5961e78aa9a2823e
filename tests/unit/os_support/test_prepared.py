"""A process that was forked before becomes a program, and nothing tells it from one that was started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pgnode.os_support import prepared
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
from pgnode.os_support import prepared
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
from pgnode.os_support import prepared
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
