"""``pgnode drain``: declared here, carried out by :mod:`pgnode.cli.drain`."""

from __future__ import annotations

from typing import Any

import click

from pgnode.cli.declaring import carry_out, json_option, target_options


@click.command("drain")
@click.option("--for", "for_text", metavar="TIME", help="End it by itself after so long, such as 30m.")
@click.option("--hold", is_flag=True, help="Go on when the panel starts the node, which else ends it.")
@click.option("--wait", "wait_text", metavar="TIME", help="Wait so long at most until no connection is open.")
@click.option("--cancel", is_flag=True, help="End it: all inbounds listen again.")
@json_option
@target_options
def drain(
    *, for_text: str | None, hold: bool, wait_text: str | None, cancel: bool, json_wanted: bool, **named: Any
) -> None:
    """Let no new users connect, while those there are go on: before a restart or an end of the node, say.

    Exit codes: 0; 4 where connections are open after --wait, or the core does not do it yet.
    """
    from pgnode.cli.drain import drain_node  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    carry_out(
        lambda: drain_node(
            Named(**named),
            cancel=cancel,
            for_text=for_text,
            hold=hold,
            wait_text=wait_text,
            json_wanted=json_wanted,
        )
    )
