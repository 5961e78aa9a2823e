"""The operator's commands: declared here, each carried out by the module of its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pgnode import __version__
from pgnode.cli import drain_command, worker_command, worker_commands
from pgnode.cli.declaring import FILE_PATH as _FILE_PATH
from pgnode.cli.declaring import LEVEL as _LEVEL
from pgnode.cli.declaring import Group as _Group
from pgnode.cli.declaring import PathParameter as _PathParameter
from pgnode.cli.declaring import Program as _Program
from pgnode.cli.declaring import carry_out as _carry_out
from pgnode.cli.declaring import json_option, target_options
from pgnode.os_support import lean_start
from pgnode.os_support.surroundings import end_with_the_program


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgnode")
def main() -> None:
    """A node for proxy panels: runs the Xray core and answers for its users' traffic."""  # noqa: D401 - it is the help text
    end_with_the_program(os.environ)


@main.command("run")
@click.option(
    "--env-file",
    type=_FILE_PATH,
    help="A file of settings, which wins over the environment; read again at a reload.",
)
@click.option("--node", help="The settings in /etc/pgnode/NODE.env; without STATE_DIR there, /var/lib/pgnode/NODE.")
@click.option("--state-dir", type=_FILE_PATH, help="The state folder; wins over STATE_DIR.")
def _run(**named: Any) -> None:
    """Run the node in the foreground, until SIGTERM or Ctrl-C."""
    lean_start.begin()
    from pgnode.cli.run import run_named  # noqa: PLC0415 - --help and the other commands need none of it

    _carry_out(lambda: run_named(**named))


@main.command("restart")
@click.option("--core", "new_core", is_flag=True, help="Start a new core as well; this ends users' connections.")
@json_option
@target_options
def _restart(new_core: bool, json_wanted: bool, **named: Any) -> None:
    """Restart the running node in place, with the version and settings that are there now; nobody is disconnected."""
    from pgnode.cli.restart import restart_node  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: restart_node(Named(**named), new_core=new_core, json_wanted=json_wanted))


@main.command("reload")
@json_option
@target_options
def _reload(json_wanted: bool, **named: Any) -> None:
    """Have the running node take its settings anew; nobody is disconnected, and a wrong setting changes nothing."""
    from pgnode.cli.restart import reload_node  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: reload_node(Named(**named), json_wanted=json_wanted))


@main.command("status")
@json_option
@target_options
def _status(json_wanted: bool, **named: Any) -> None:
    """Show how the node is: core, users, panel, workers, bus, store, certificate, last warnings.

    Exit codes: 0 well, 1 error, 2 settings, 3 not running, 4 running and not well.
    """
    from pgnode.cli.status import show_status  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_status(Named(**named), json_wanted=json_wanted))


@main.command("top")
@click.option("--once", is_flag=True, help="Print one look, for a pipe or a terminal that cannot be drawn on.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one look as one JSON object.")
@target_options
def _top(once: bool, json_wanted: bool, **named: Any) -> None:
    """Show the node live: traffic, connections, calls, core, users by rate, workers, last warnings; q ends it."""
    from pgnode.cli.target import Named  # noqa: PLC0415
    from pgnode.cli.top import show_top  # noqa: PLC0415

    _carry_out(lambda: show_top(Named(**named), once=once, json_wanted=json_wanted))


@main.command("health")
@click.option("--live", "kind", flag_value="live", default=True, help="The supervisor answers (the default).")
@click.option("--ready", "kind", flag_value="ready", help="The API works, and the core is up where one has to be.")
@click.option("--core", "kind", flag_value="core", help="The core is up.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
@json_option
@target_options
def _health(*, kind: Any, quiet: bool, json_wanted: bool, **named: Any) -> None:
    """Say by the exit code, 0 or 1, whether the node is healthy: for HEALTHCHECK and scripts."""
    from pgnode.cli.health import show_health  # noqa: PLC0415

    _carry_out(lambda: show_health(kind, quiet=quiet, json_wanted=json_wanted, **named))


@main.command("doctor")
@json_option
@target_options
def _doctor(json_wanted: bool, **named: Any) -> None:
    """Look at the node and what it stands on: settings, ports, certificate, clock, disk, limits, Redis; say what to do."""
    from pgnode.cli.doctor import show_doctor  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_doctor(Named(**named), json_wanted=json_wanted))


@main.command("check-config")
@click.argument("file", type=_PathParameter(allow_dash=True), required=False)
@click.option("--exclude", multiple=True, metavar="TAG", help="An inbound whose clients stay as the config has them.")
@json_option
@target_options
def _check_config(file: Path | None, exclude: tuple[str, ...], json_wanted: bool, **named: Any) -> None:
    """Check a core's config, FILE (JSON, - for standard input), as a start would; without one the node's settings.

    The node is not touched. Exit codes: 0 a start would take it, 1 the config is refused, 2 a setting is wrong.
    """
    from pgnode.cli.target import Named  # noqa: PLC0415

    if file is None:
        from pgnode.cli.check_settings import show_settings_check  # noqa: PLC0415

        _carry_out(lambda: show_settings_check(Named(**named), json_wanted=json_wanted))
    from pgnode.cli.check_config import show_check  # noqa: PLC0415

    _carry_out(lambda: show_check(Named(**named), file, exclude=exclude, json_wanted=json_wanted))


@main.command("config")
@click.option("--changed", is_flag=True, help="Only those that are set, or that the running node has otherwise.")
@json_option
@target_options
def _config(changed: bool, json_wanted: bool, **named: Any) -> None:
    """Show the settings, where each comes from, and what the running node has in their place; secrets are hidden."""
    from pgnode.cli.config import show_config  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_config(Named(**named), changed_only=changed, json_wanted=json_wanted))


@main.command("import-env")
@click.argument("file", type=_FILE_PATH)
@click.option("--write", type=_FILE_PATH, metavar="NEW", help="Write the settings to a new file.")
@json_option
def _import_env(file: Path, write: Path | None, json_wanted: bool) -> None:
    """Turn the .env file of PasarGuard's Go node into settings of pgnode, and say what differs; secrets are printed."""
    from pgnode.cli.import_env import import_env  # noqa: PLC0415

    _carry_out(lambda: import_env(file, write=write, json_wanted=json_wanted))


@main.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--core/--no-core", "core", default=None, help="The core's lines alone, or those of the node alone.")
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="The last ones; 0 = all.")
@click.option("--since", metavar="TIME", help="Not what is older than that: 30s, 10m, 2h.")
@click.option("--level", type=_LEVEL, default="debug", help="What is at least as grave as that.")
@click.option("--grep", "text", default="", metavar="TEXT", help="Lines with this text.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object a line.")
@target_options
def _logs(
    *,
    follow: bool,
    core: bool | None,
    lines: int,
    since: str | None,
    level: str,
    text: str,
    json_wanted: bool,
    **named: Any,
) -> None:
    """Show the last lines of the log, of the core and of the node's own processes, and with -f what comes."""
    from pgnode.cli.logs import begin_logs  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(
        lambda: begin_logs(
            Named(**named),
            core=core,
            level=level,
            since=since,
            text=text,
            count=lines,
            follow=follow,
            json_wanted=json_wanted,
        )
    )


@main.command("log-level")
@click.argument("level", required=False, type=_LEVEL)
@click.option("--for", "duration", metavar="TIME", help="Only for so long: 30s, 10m, 2h.")
@json_option
@target_options
def _log_level(level: str | None, duration: str | None, json_wanted: bool, **named: Any) -> None:
    """Show which lines the node prints of its own, or have it print others; the settings count again at its next start.

    It is the level of all processes of the node on this machine, workers too. What the core logs is the panel's decision.
    """
    from pgnode.cli.log_level import show_level  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_level(Named(**named), level, duration=duration, json_wanted=json_wanted))


@main.command("users")
@click.argument("name", required=False)
@click.option("--failed", is_flag=True, help="Only those that were rejected.")
@click.option("--waiting", is_flag=True, help="Only those that the core does not have as desired yet, or still has.")
@click.option(
    "--top",
    is_flag=False,
    flag_value=20,
    type=click.IntRange(1),
    metavar="[N]",
    help="Only the N (20) users with most traffic since the state folder was made, and what each moved.",
)
@click.option(
    "--sessions", is_flag=True, help="The open connections of NAME: from where, through which inbound, since when."
)
@click.option("--disconnect", is_flag=True, help="End these connections; NAME may come back.")
@json_option
@target_options
def _users(*, name: str | None, sessions: bool, disconnect: bool, json_wanted: bool, **wanted: Any) -> None:
    """Show the node's users, or the one with the e-mail NAME: desired, applied or not yet, rejected and why."""
    from pgnode.cli.target import Named  # noqa: PLC0415

    failed, waiting, top = (wanted.pop(option) for option in ("failed", "waiting", "top"))
    named = wanted
    if sessions or disconnect:
        if name is None or failed or waiting or top is not None or (sessions and disconnect):
            raise click.UsageError("--sessions and --disconnect are each for one user, NAME, and nothing beside it")
        from pgnode.cli.sessions import show_sessions  # noqa: PLC0415

        _carry_out(lambda: show_sessions(Named(**named), name, disconnect=disconnect, json_wanted=json_wanted))
    from pgnode.cli.users import Wanted, show_users  # noqa: PLC0415

    _carry_out(lambda: show_users(Named(**named), Wanted(failed, waiting, name, top), json_wanted=json_wanted))


@main.command("stats")
@click.option(
    "--json",
    "json_wanted",
    is_flag=True,
    help="All of it as one JSON object, with --watch one a line; bytes and seconds.",
)
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(0), help="Lines of a kind; 0 = all.")
@target_options
def _stats(json_wanted: bool, watch: bool, top: int, **named: Any) -> None:
    """Show traffic by users, inbounds and outbounds, who is online, and what callers have not been given yet."""
    from pgnode.cli.stats import show_stats  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_stats(Named(**named), json_wanted=json_wanted, watch=watch, top=top))


@main.command("backup")
@click.argument("file", type=_PathParameter(allow_dash=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE where it is there.")
@json_option
@target_options
def _backup(file: Path, force: bool, json_wanted: bool, **named: Any) -> None:
    """Write users, config, routing, traffic books, key and certificate to FILE (- for standard output); the node may run."""
    from pgnode.cli.backup import back_up  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: back_up(Named(**named), file, force=force, json_wanted=json_wanted))


@main.command("restore")
@click.argument("file", type=_PathParameter(allow_dash=True, dir_okay=False))
@click.option("--without-identity", is_flag=True, help="Leave key and certificate as they are here.")
@click.option(
    "--owed",
    type=click.Choice(["drop", "keep"]),
    default="drop",
    show_default=True,
    help="Traffic that was counted and not reported then: keep reports it, once more where it was since.",
)
@click.option("--foreign", is_flag=True, help="Also where this is another node than that of the backup.")
@json_option
@target_options
def _restore(file: Path, without_identity: bool, owed: Any, foreign: bool, json_wanted: bool, **named: Any) -> None:
    """Restore a backup, FILE or - for standard input, into a node that is stopped: wholly, or not at all."""
    from pgnode.cli.restore import restore  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(
        lambda: restore(
            Named(**named),
            file,
            owed=owed,
            with_identity=not without_identity,
            foreign=foreign,
            json_wanted=json_wanted,
        )
    )


@main.group("key", cls=_Group)
def _key() -> None:
    """Show or replace the API key."""


@_key.command("show")
@click.option("--block", is_flag=True, help="All that a panel's form asks for: address, ports, key, certificate.")
@json_option
@target_options
def _key_show(block: bool, json_wanted: bool, **named: Any) -> None:
    """Print the API key, and nothing else."""
    from pgnode.cli.key import show_key  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_key(Named(**named), block=block, json_wanted=json_wanted))


@_key.command("rotate")
@click.option("--overlap", default="24h", show_default=True, help="How long the old key stays valid; 0 = not at all.")
@json_option
@target_options
def _key_rotate(overlap: str, json_wanted: bool, **named: Any) -> None:
    """Make a new API key; the old one stays valid for some time, and the running node takes both by itself."""
    from pgnode.cli.key import rotate  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: rotate(Named(**named), overlap=overlap, json_wanted=json_wanted))


@_key.command("forget-previous")
@json_option
@target_options
def _key_forget_previous(json_wanted: bool, **named: Any) -> None:
    """End the previous API key now."""
    from pgnode.cli.key import forget_previous  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: forget_previous(Named(**named), json_wanted=json_wanted))


@main.group("cert", cls=_Group)
def _cert() -> None:
    """Show, renew or check the certificate of the API."""


@_cert.command("show")
@json_option
@target_options
def _cert_show(json_wanted: bool, **named: Any) -> None:
    """Print the certificate, to be pasted into a panel, with its names and its end."""
    from pgnode.cli.cert import show_certificate  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: show_certificate(Named(**named), json_wanted=json_wanted))


@_cert.command("renew")
@click.option("--name", "names", multiple=True, help="A further name or address; may be given more than once.")
@click.option("--days", default=3650, show_default=True, type=click.IntRange(1, 36_500), help="How long it is valid.")
@json_option
@target_options
def _cert_renew(names: tuple[str, ...], days: int, json_wanted: bool, **named: Any) -> None:
    """Make a new self-signed certificate; panels pin it, so they have to be given the new one."""
    from pgnode.cli.cert import renew_certificate  # noqa: PLC0415
    from pgnode.cli.target import Named  # noqa: PLC0415

    _carry_out(lambda: renew_certificate(Named(**named), names=names, days=days, json_wanted=json_wanted))


@_cert.command("check")
@click.argument("file", type=_FILE_PATH)
@click.argument("key", type=_FILE_PATH)
@json_option
def _cert_check(file: Path, key: Path, json_wanted: bool) -> None:
    """Check a certificate and its private key (PEM) as a start would; no node is needed."""
    from pgnode.cli.cert import check_files  # noqa: PLC0415

    _carry_out(lambda: check_files(file, key, json_wanted=json_wanted))


@main.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def _completion(shell: str, json_wanted: bool) -> None:
    """Print what SHELL needs to complete these commands, say: eval "$(pgnode completion bash)" in ~/.bashrc."""
    from pgnode.cli.completion import print_completion  # noqa: PLC0415

    _carry_out(lambda: print_completion(shell, main, json_wanted=json_wanted))


@main.command("demo")
@json_option
def _demo(json_wanted: bool) -> None:
    """Show that it works without a panel: a private node, real users, real traffic. Ends by itself."""
    from pgnode.cli.demo import run_demo  # noqa: PLC0415

    _carry_out(lambda: run_demo(json_wanted=json_wanted))


main.add_command(worker_command.worker)
main.add_command(worker_commands.workers)
main.add_command(drain_command.drain)
