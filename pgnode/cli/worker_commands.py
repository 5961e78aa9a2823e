"""``pgnode workers`` and what is below it: declared here, carried out by :mod:`pgnode.cli.workers`."""

from __future__ import annotations

from typing import Any

import click

from pgnode.cli.declaring import carry_out, json_option, target_options


@click.group("workers", invoke_without_command=True)
@json_option
@target_options
@click.pass_context
def workers(context: click.Context, /, json_wanted: bool, **named: Any) -> None:
    """Show the API workers, those of other hosts included. Or have more, fewer, or others here; no call fails."""
    if context.invoked_subcommand is not None:
        if json_wanted or any(named.values()):
            # They would be lost, and the order would go to another node.
            raise click.UsageError(f"options belong behind {context.invoked_subcommand}, not before it")
        return
    from pgnode.cli.target import Named  # noqa: PLC0415
    from pgnode.cli.workers import show_workers  # noqa: PLC0415

    carry_out(lambda: show_workers(Named(**named), json_wanted=json_wanted))


def _order(name: str, text: str) -> None:
    """Declare ``pgnode workers add`` or ``remove``."""

    @workers.command(name, help=text)
    @click.argument("count", type=click.IntRange(1), default=1)
    @click.option("--grpc", "kind", flag_value="grpc", help="gRPC workers.")
    @click.option("--rest", "kind", flag_value="rest", default=True, help="REST workers (the default).")
    @json_option
    @target_options
    def order(count: int, kind: str, json_wanted: bool, **named: Any) -> None:
        from pgnode.cli.target import Named  # noqa: PLC0415
        from pgnode.cli.workers import order_workers  # noqa: PLC0415

        what: Any = name
        carry_out(lambda: order_workers(Named(**named), what, kind=kind, count=count, json_wanted=json_wanted))


_order(
    "add",
    "Have COUNT more API workers, until the next restart or reload; WEB_CONCURRENCY and GRPC_WORKERS keep a number.",
)
_order("remove", "Have COUNT fewer API workers, until the next restart or reload; one of a kind stays.")


@workers.command("restart")
@click.argument("pid", type=click.IntRange(1), required=False)
@json_option
@target_options
def _workers_restart(pid: int | None, json_wanted: bool, **named: Any) -> None:
    """Replace all API workers, or the one with this PID; GUNICORN_CONF is read again with all of them."""
    from pgnode.cli.target import Named  # noqa: PLC0415
    from pgnode.cli.workers import order_workers  # noqa: PLC0415

    carry_out(lambda: order_workers(Named(**named), "restart", pid=pid, json_wanted=json_wanted))
