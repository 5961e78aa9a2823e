"""``pgnode cert``: shows the certificate of the API, makes a new one of the node's own, and checks a pair before it is served."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pgnode.cli.facts import seen_certificate
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.rows import Tone
from pgnode.cli.screen import Screen
from pgnode.cli.seen import SeenCertificate
from pgnode.cli.target import Named, find_with_settings
from pgnode.errors import ArgumentError, OperatorError
from pgnode.os_support.files import read_regular
from pgnode.settings import Settings
from pgnode.settings.checks import is_cert_name
from pgnode.supervisor.host.certificate import PEM_BYTES_MAX, check_pair
from pgnode.supervisor.host.own_certificate import CERT_DAYS, make_certificate

#: Nothing is wrong with it, but its time is over.
EXIT_EXPIRED = 1

_PINNED = "panels pin the certificate: give them this one (pgnode cert show), or they cannot connect"


def show_certificate(named: Named, *, json_wanted: bool = False) -> int:
    """Print the certificate, to be pasted into a panel's form, and what it says. Raise OperatorError where there is none."""
    _, settings = find_with_settings(named)
    if settings.ssl_cert_file is None and not settings.cert_file.exists():
        raise OperatorError(f"there is no {settings.cert_file} yet: the node makes it at its first start")
    seen = _seen(settings)
    pem = read_regular(settings.cert_file, PEM_BYTES_MAX).decode("ascii", errors="replace").strip()
    if json_wanted:
        Screen().json({**asdict(seen), "pem": pem})
        return 0
    for line in _lines(seen):
        say(line)
    say(pem)
    return 0


def renew_certificate(
    named: Named, *, names: Sequence[str] = (), days: int = CERT_DAYS, json_wanted: bool = False
) -> int:
    """Make a new certificate of the node's own. The running node takes it by itself.

    Args:
        named: What the operator said about which node is meant.
        names: Further names and addresses that it has.
        days: For how long it is valid.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: The one that there is stays; the text says why.
    """
    target, settings = find_with_settings(named)
    if settings.ssl_cert_file is not None:
        raise OperatorError(
            f"SSL_CERT_FILE={settings.ssl_cert_file} is not the node's own certificate: renew it where it comes from. The node "
            "takes new files by itself"
        )
    for name in names:
        if not is_cert_name(name):
            raise ArgumentError(f"--name {name} is not allowed: give an address, or a name such as node.example.com")
    if not settings.cert_file.parent.is_dir():
        raise OperatorError(f"there is no {settings.cert_file.parent} yet: the node makes it at its first start")
    before = set(seen_certificate(settings.cert_file).names)
    # Those that are set now, too: the running node need not have taken them.
    asked = [name for name in (*target.settings.cert_names.split(","), *names) if name]
    make_certificate(settings, asked, days=days)
    note(settings, "certificate", "certificate renewed", {"names": ",".join(asked), "days": days})
    seen = _seen(settings)
    gone = sorted(before - {*seen.names})
    if json_wanted:
        Screen().json({**asdict(seen), "names_gone": gone})
        return 0
    for line in _lines(seen):
        say(line)
    if gone:
        say(f"no more in it: {', '.join(gone)}  (CERT_NAMES keeps names for good)")
    say(_PINNED)
    if target.pid is not None:
        say("the running node serves it within a few seconds, for new connections")
    return 0


def check_files(file: Path, key: Path, *, json_wanted: bool = False) -> int:
    """Check a certificate and its key as a start would.

    Args:
        file: The certificate, PEM.
        key: Its private key, PEM.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        SettingsError: They cannot be served; the text says why.
    """
    settings = Settings.model_construct(ssl_cert_file=file.absolute(), ssl_key_file=key.absolute())
    _, until = check_pair(settings)
    seen = seen_certificate(settings.cert_file)
    expired = until < datetime.datetime.now(datetime.UTC)
    if json_wanted:
        Screen().json({**asdict(seen), "expired": expired})
        return EXIT_EXPIRED if expired else 0
    for line in _lines(seen):
        say(line)
    Screen().line(
        "they fit, but the certificate has expired: callers refuse it" if expired else "they fit, and can be served",
        Tone.BAD if expired else Tone.GOOD,
    )
    return EXIT_EXPIRED if expired else 0


def _seen(settings: Settings) -> SeenCertificate:
    """Read the certificate. Raises OperatorError."""
    seen = seen_certificate(settings.cert_file)
    if seen.error:
        raise OperatorError(f"{seen.path} cannot be used: {seen.error}")
    return seen


def _lines(seen: SeenCertificate) -> list[str]:
    kind = "self-signed" if seen.self_signed else "signed by an authority"
    until = datetime.datetime.fromtimestamp(seen.until, datetime.UTC)
    return [
        f"file      {seen.path}",
        f"kind      {kind}, until {until:%Y-%m-%d %H:%M} UTC",
        f"names     {', '.join(seen.names) or 'none'}",
    ]
