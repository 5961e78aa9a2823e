"""What the declarations of commands share: options, and how a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from pgnode.cli.output import say, with_outputs
from pgnode.errors import OperatorError
from pgnode.os_support.log_levels import LEVELS

json_option = click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object.")


class PathParameter(click.Path):
    """A path; whether it may be read is found out, and told, by who reads it.

    An empty one, such as that of a variable of a shell that is not set, would be the working folder.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, readable=False, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises BadParameter."""
        if value == "":
            self.fail("an empty path names nothing", param, ctx)
        return super().convert(value, param, ctx)


FILE_PATH: Any = PathParameter()

#: A level of the log.
LEVEL = click.Choice(LEVELS, case_sensitive=False)

#: Options of nearly all commands, which some write before the command.
_OF_COMMANDS = frozenset({"--node", "--env-file", "--state-dir", "--json"})


def _node_names(_context: click.Context, _parameter: click.Parameter, beginning: str) -> list[Any]:
    from pgnode.cli.completion import node_names  # noqa: PLC0415

    return node_names(beginning)


class Group(click.Group):
    """A command with others below it: without a word behind it, it says which there are, and that is no error."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"no_args_is_help": False, **options})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print the help where there is nothing to parse. Raises UsageError."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            say(ctx.get_help())
            ctx.exit()
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in _OF_COMMANDS:
                raise
            raise click.UsageError(
                f"{error.option_name} stands behind the command: pgnode status --node east", ctx
            ) from None


class Program(Group):
    """The command that has all others below it."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Carry out what was asked for, wherever its output goes. Raises SystemExit."""
        return with_outputs(lambda: super(Program, self).main(*arguments, **options))


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which node is meant."""
    for option in (
        click.option("--state-dir", type=FILE_PATH, help="The node with this state folder."),
        click.option("--env-file", type=FILE_PATH, help="The node with this file of settings."),
        click.option("--node", shell_complete=_node_names, help="The node with the settings in /etc/pgnode/NODE.env."),
    ):
        command = option(command)
    return command


def carry_out(command: Callable[[], int]) -> NoReturn:
    """End the process with what ``command`` returns, or with the code of its OperatorError."""
    try:
        code = command()
    except OperatorError as error:
        say(f"pgnode: {error}", error=True)
        code = error.exit_code
    sys.exit(code)
