"""The private parts of ``multiprocess`` that are used: each is there, has this signature, and does what is needed of it."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import multiprocess
import multiprocess.process
import multiprocess.spawn
import pytest

import pgnode
from pgnode.xray.process import multiprocess_compat


def test_main_is_read_when_a_process_is_prepared() -> None:
    assert list(inspect.signature(multiprocess.spawn.get_preparation_data).parameters) == ["name"]
    before = sys.modules["__main__"]
    with multiprocess_compat.without_main():
        prepared = multiprocess.spawn.get_preparation_data("x")
    assert sys.modules["__main__"] is before
    assert not prepared.keys() & {"init_main_from_name", "init_main_from_path"}


def test_main_is_put_back_after_a_failure() -> None:
    before = sys.modules["__main__"]
    with pytest.raises(RuntimeError), multiprocess_compat.without_main():
        raise RuntimeError
    assert sys.modules["__main__"] is before


def test_one_thread_at_a_time_hides_main() -> None:
    hidden: list[object] = []

    def other() -> None:
        with multiprocess_compat.without_main():
            hidden.append(sys.modules["__main__"])

    before = sys.modules["__main__"]
    thread = threading.Thread(target=other)
    with multiprocess_compat.without_main():
        thread.start()
        assert not hidden
    thread.join(10)
    assert len(hidden) == 1
    assert sys.modules["__main__"] is before


def test_children_are_a_set_that_is_waited_for_at_exit() -> None:
    assert isinstance(multiprocess.process._children, set)
    child = object()
    multiprocess.process._children.add(child)
    multiprocess_compat.forget(child)
    assert child not in multiprocess.process._children
    multiprocess_compat.forget(child)


def test_no_helper_is_started() -> None:
    """In a process of its own: another test may have needed the helper."""
    code = (
        "import multiprocess, multiprocess.resource_tracker as module, os, psutil\n"
        "from pgnode.xray.process import multiprocess_compat\n"
        "multiprocess_compat.without_helper()\n"
        "number = module.getfd()\n"
        "multiprocess_compat.without_helper()\n"
        "assert module.getfd() == number\n"
        "assert os.readlink(f'/proc/self/fd/{number}') == os.devnull\n"
        "assert not os.get_inheritable(number)\n"
        "context = multiprocess.get_context('spawn')\n"
        "with multiprocess_compat.without_main():\n"
        "    process = context.Process(target=os.getpid)\n"
        "    process.start()\n"
        "others = [child for child in psutil.Process().children() if child.pid != process.pid]\n"
        "process.join()\n"
        "assert process.exitcode == 0\n"
        "assert others == []\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_what_runner_uses_is_public() -> None:
    context = multiprocess.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    writer.send_bytes(b"x")
    assert reader.recv_bytes() == b"x"
    writer.close()
    with pytest.raises(EOFError):
        reader.recv_bytes()
    reader.close()
    process = context.Process(target=os.getpid, args=(), name="never started")
    assert process.pid is None
    assert process.exitcode is None
    assert {"start", "join", "kill"} <= set(dir(process))


def test_no_other_module_touches_a_private_part() -> None:
    root = Path(pgnode.__file__).parent
    private = re.compile(r"multiprocess(\.\w+)*\._[a-z]|multiprocess\.(resource_tracker|spawn|process)\b")
    found = {path.name for path in root.rglob("*.py") if private.search(path.read_text())}
    assert found == {"multiprocess_compat.py"}
