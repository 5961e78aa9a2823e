"""What shells get; a bash that runs really completes with it."""

from __future__ import annotations

import json
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
    assert print_completion(shell, main, json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script.removesuffix("\n")}
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


#: How each is begun without files of anybody, and what readies it for completion.
INTERACTIVE = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; bind 'set completion-query-items 0'",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        # Without a cache of its own, and without a look at who owns the functions.
        "PS1='$ '; unset zle_bracketed_paste; LISTMAX=1000; autoload -Uz compinit; compinit -u -D",
    ),
}


class Shell:
    """A shell on a terminal, as an operator has it."""

    def __init__(self, folder: Path, name: str) -> None:
        command, ready = INTERACTIVE[name]
        environment = {
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
            "PS1": "$ ",
        }
        self._terminal, inside = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(inside)
        self._seen = ""
        self.run(ready)
        self.run(f'eval "$(pgnode completion {name})"')

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
def shell(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shell]:
    if shutil.which(request.param) is None or not PROGRAM.exists():
        pytest.skip(f"there is no {request.param} here, or no installed pgnode")
    made = Shell(tmp_path, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("shell", INTERACTIVE, indirect=True)
def test_a_shell_completes(shell: Shell, tmp_path: Path) -> None:
    shell.type("pgnode check-c\t")
    shell.wait_for("check-config ")
    shell.type("\x15pgnode key ro\t")
    shell.wait_for("rotate ")
    shell.type("--ov\t")
    shell.wait_for("erlap ")
    shell.type("\x15pgnode re\t\t")
    shown = shell.wait_for("restore")
    assert "restart" in shown
    assert "reload" in shown
    # Files, where a file is meant.
    (tmp_path / "config-of-mine.json").touch()
    shell.type("\x15pgnode check-config config-of\t")
    shell.wait_for("-mine.json ")


def test_fish_completes(tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None or not PROGRAM.exists():
        pytest.skip("there is no fish here, or no installed pgnode")
    (tmp_path / "config-of-mine.json").touch()
    # Where fish looks for it by the command's name, as docs/commands.md says.
    place = tmp_path / ".config" / "fish" / "completions" / "pgnode.fish"
    place.parent.mkdir(parents=True)
    environment = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}
    place.write_bytes(subprocess.check_output([PROGRAM, "completion", "fish"], env=environment, timeout=ANSWER_SECONDS))

    def completions(line: str) -> list[str]:
        asked = [fish, "-c", f"complete -C '{line}'"]
        said = subprocess.check_output(asked, env=environment, cwd=tmp_path, text=True, timeout=ANSWER_SECONDS)
        return [found.split("\t")[0] for found in said.splitlines()]

    assert completions("pgnode check-c") == ["check-config"]
    assert completions("pgnode re") == ["reload", "restart", "restore"]
    assert completions("pgnode key rotate --ov") == ["--overlap"]
    assert completions("pgnode check-config config-of") == ["config-of-mine.json"]
