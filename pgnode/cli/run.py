"""``pgnode run``: the node in the foreground."""

from __future__ import annotations

import os

import click


def run_node() -> int:
    """Run the node until it is told to end.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot run as it is set up.
    """
    # The gRPC library's hooks around fork are of no use here (every process of ours is spawned) and print about it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from pgnode.settings import load, unknown_settings  # noqa: PLC0415 - after that
    from pgnode.supervisor.main import run  # noqa: PLC0415

    settings = load()
    for sentence in unknown_settings():
        click.echo(f"pgnode: {sentence}", err=True)
    return run(settings)
