"""The operator's commands: ``pgnode run``, ``pgnode demo``, ``pgnode users``, ``pgnode stats``."""

from __future__ import annotations

import os
import sys

import click

from pgnode import __version__
from pgnode.errors import OperatorError
from pgnode.settings import load


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgnode")
def main() -> None:
    """A node for proxy panels: runs the Xray core and answers for its users' traffic."""


@main.command()
def run() -> None:
    """Run the node in the foreground, until SIGTERM or Ctrl-C."""
    # The gRPC library's hooks around fork are of no use here (every process of ours is spawned) and print about it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from pgnode.supervisor.main import run as run_node  # noqa: PLC0415 - the demo and --help need none of it

    try:
        code = run_node(load())
    except OperatorError as error:
        click.echo(f"pgnode: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code)


@main.command()
@click.option("--failed", is_flag=True, help="Only those that were refused.")
@click.option("--waiting", is_flag=True, help="Only those that the core does not have as desired yet, or still has.")
def users(failed: bool, waiting: bool) -> None:
    """Show the node's users: desired, applied or not yet, failed and why."""
    from pgnode.cli.users import report  # noqa: PLC0415

    try:
        for line in report(load(), failed_only=failed, waiting_only=waiting):
            click.echo(line)
    except OperatorError as error:
        click.echo(f"pgnode: {error}", err=True)
        sys.exit(error.exit_code)


@main.command()
@click.option(
    "--json",
    "json_wanted",
    is_flag=True,
    help="All of it as one JSON object, with --watch one a line; bytes and seconds.",
)
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(0), help="Lines of a kind; 0 = all.")
def stats(json_wanted: bool, watch: bool, top: int) -> None:
    """Show traffic by users, inbounds and outbounds, who is online, and what callers have not been given yet."""
    from pgnode.cli.stats import report  # noqa: PLC0415

    try:
        report(load(), json_wanted=json_wanted, watch=watch, top=top)
    except KeyboardInterrupt:
        sys.exit(0)
    except OperatorError as error:
        click.echo(f"pgnode: {error}", err=True)
        sys.exit(error.exit_code)


@main.command()
def demo() -> None:
    """Show that it works without a panel: a private node, real users, real traffic. Ends by itself."""
    from pgnode.demo.show import run_demo  # noqa: PLC0415

    sys.exit(run_demo())
