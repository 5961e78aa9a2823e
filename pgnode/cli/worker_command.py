"""``pgnode worker`` and what is below it: declared here, carried out by :mod:`pgnode.cli.alone`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pgnode.cli.declaring import FILE_PATH, Group, carry_out, json_option


@click.group("worker", cls=Group)
def worker() -> None:
    """Run API workers alone, on this host or another one: they meet their supervisor over REDIS_URL."""


def _kind(name: str, text: str) -> None:
    """Declare ``pgnode worker rest`` or ``grpc``."""

    @worker.command(name, help=text)
    @click.option(
        "--env-file",
        type=FILE_PATH,
        help="A file of settings, which wins over the environment; read again at SIGHUP.",
    )
    @click.option("--node", help="The settings in /etc/pgnode/NODE.env.")
    @click.option(
        "--check", is_flag=True, help="Look at all that it needs and start nothing; 0 well, 2 something is missing."
    )
    @json_option
    def run(env_file: Path | None, node: str | None, *, check: bool, json_wanted: bool) -> None:
        from pgnode.cli.alone import run_worker  # noqa: PLC0415

        kind: Any = name
        carry_out(lambda: run_worker(kind, env_file, node, check=check, json_wanted=json_wanted))


_kind(
    "rest",
    "Serve REST and maintenance by Gunicorn with WEB_CONCURRENCY workers, in the foreground. SIGTERM ends it in order, SIGHUP "
    "takes settings and GUNICORN_CONF anew, SIGTTIN and SIGTTOU have one worker more or fewer; no call fails.",
)

_kind(
    "grpc",
    "Serve gRPC by GRPC_WORKERS processes, in the foreground. SIGTERM ends it in order, SIGHUP takes settings anew and replaces "
    "them one for one, SIGTTIN and SIGTTOU have one more or fewer; no call fails.",
)
