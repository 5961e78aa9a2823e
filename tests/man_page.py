"""The manual page, made from the commands as they are declared: written by ``make docs``, and part of the wheel."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from pgnode import __version__
from pgnode.cli import main

_CODES = (
    ("0", "well"),
    ("1", "an error, in one sentence"),
    ("2", "a setting is wrong"),
    ("3", "the node is not running; or, where it must not, it is"),
    ("4", "it runs, and something is not well"),
)

#: Options that say which node is meant, the same for all commands that have them.
_NODE = ("node", "env_file", "state_dir")

_FILES = (
    (".env", "settings, in the folder in which the node is started"),
    ("/etc/pgnode.env", "settings of the service"),
    ("/etc/pgnode/NODE.env", "settings of one of several services, pgnode@NODE"),
    ("/var/lib/pgnode", "state folder of the service"),
    ("~/.local/state/pgnode", "state folder without STATE_DIR, of a user who is not root"),
)


def man_page(changelog: Path) -> str:
    """The page, in the language of man(7).

    Args:
        changelog: Says when this version was made.
    """
    found = re.search(
        rf"^## {re.escape(__version__)} \(([\d-]+)\)", changelog.read_text(encoding="utf-8"), re.MULTILINE
    )
    date = found[1] if found is not None else ""
    return "\n".join(_lines(date)) + "\n"


def _lines(date: str) -> Iterator[str]:
    yield '.\\" Made from the commands by `make docs`.'
    yield f'.TH PGNODE 1 "{date}" "pgnode {__version__}" "User Commands"'
    yield ".nh"
    yield ".ad l"
    yield ".SH NAME"
    yield "pgnode \\- a node for proxy panels: runs the Xray core and answers for its users' traffic"
    yield ".SH SYNOPSIS"
    yield ".B pgnode"
    yield "COMMAND [OPTION]... [ARGUMENT]..."
    yield ".SH DESCRIPTION"
    yield _text(
        "`pgnode run` runs the node; most other commands are about a node: the one that is named, else that of this environment "
        "or of this user, else the only one that runs on this machine."
    )
    yield ".SH WHICH NODE"
    status = main.commands["status"]
    yield from _options(parameter for parameter in status.params if parameter.name in _NODE)
    yield ".SH COMMANDS"
    for words, command in _commands(main, "pgnode"):
        yield from _command(words, command)
    yield ".SH EXIT STATUS"
    for code, meaning in _CODES:
        yield from (".TP", f".B {code}", _text(meaning))
    yield _text("pgnode run has further codes of its own, and pgnode health 0 and 1 alone.", paragraph=True)
    yield ".SH FILES"
    for path, meaning in _FILES:
        yield from (".TP", f".I {_text(path)}", _text(meaning))


def _commands(group: click.Group, words: str) -> Iterator[tuple[str, click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def _command(words: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=words)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {_text(f'{words} {usage}')}"
    for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        yield _text(" ".join(paragraph.split()), paragraph=number > 0)
    names_node = all(name in {parameter.name for parameter in command.params} for name in _NODE)
    yield from _options(one for one in command.params if not (names_node and one.name in _NODE))
    if names_node:
        yield _text("It takes the options of WHICH NODE, too.", paragraph=True)


def _options(parameters: Iterable[click.Parameter]) -> Iterator[str]:
    for parameter in parameters:
        if isinstance(parameter, click.Option):
            record = parameter.get_help_record(click.Context(main))
            assert record is not None, parameter.name
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))


def _text(text: str, *, paragraph: bool = False) -> str:
    """Text that roff takes for text."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    plain = re.sub(r"^([.'])", r"\\&\1", plain)
    return f".PP\n{plain}" if paragraph else plain
