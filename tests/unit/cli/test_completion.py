"""What shells get; a bash that runs really completes with it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pgnode.cli import main
from pgnode.cli.completion import SHELLS, node_names, print_completion
from pgnode.errors import OperatorError

#: Seconds in which a busy machine starts Python for a completion.
ANSWER_SECONDS = 60.0

PROGRAM = Path(sys.executable).with_name("pgnode")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_that_it_takes(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_completion(shell, main) == 0
    script = capsys.readouterr().out
    assert f"_PGNODE_COMPLETE={shell}_complete" in script
    if (program := shutil.which(shell)) is not None:
        checked = subprocess.run([program, "-n"], input=script, text=True, capture_output=True, check=False, timeout=60)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_another_shell_is_not_known() -> None:
    with pytest.raises(OperatorError, match="tcsh is not known: known are bash, zsh, fish"):
        print_completion("tcsh", main)


def test_names_of_nodes(tmp_path: Path) -> None:
    for name in ("east.env", "west.env", "easy.txt"):
        (tmp_path / name).touch()
    assert [item.value for item in node_names("ea", tmp_path)] == ["east"]
    assert [item.value for item in node_names("", tmp_path)] == ["east", "west"]
    assert node_names("", tmp_path / "nowhere") == []
    command = main.commands["status"]
    option = next(parameter for parameter in command.params if parameter.name == "node")
    assert isinstance(option.shell_complete(click.Context(command), "no such node"), list)


class Bash:
    """A bash on a terminal, as an operator has it."""

    def __init__(self, folder: Path) -> None:
        environment = {
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
            "PS1": "$ ",
        }
        self._terminal, inside = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(inside)
        self._seen = ""
        self.run(
            "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; bind 'set completion-query-items 0'"
        )
        self.run('eval "$(pgnode completion bash)"')

    def run(self, line: str) -> None:
        """Type a line, and wait until it is done."""
        self.type(f"{line}; echo do''ne\n")
        self.wait_for("done")

    def type(self, keys: str) -> None:
        """Type, after which only what comes then is seen."""
        self._seen = ""
        os.write(self._terminal, keys.encode())

    def wait_for(self, text: str) -> str:
        """Wait until the terminal shows it; return all that it shows."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, f"the terminal does not show {text!r}, but {self._seen!r}"
            if select.select([self._terminal], [], [], left)[0]:
                self._seen += os.read(self._terminal, 4096).decode(errors="replace")
        return self._seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Bash]:
    if shutil.which("bash") is None or not PROGRAM.exists():
        pytest.skip("there is no bash here, or no installed pgnode")
    made = Bash(tmp_path)
    yield made
    made.close()


def test_bash_completes(bash: Bash, tmp_path: Path) -> None:
    bash.type("pgnode check-c\t")
    bash.wait_for("check-config ")
    bash.type("\x15pgnode key ro\t")
    bash.wait_for("rotate ")
    bash.type("--ov\t")
    bash.wait_for("erlap ")
    bash.type("\x15pgnode re\t\t")
    shown = bash.wait_for("restore")
    assert "restart" in shown
    assert "reload" in shown
    # Files, where a file is meant.
    (tmp_path / "config-of-mine.json").touch()
    bash.type("\x15pgnode check-config config-of\t")
    bash.wait_for("-mine.json ")
