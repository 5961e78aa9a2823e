"""``pgnode key``: shows the API key, and replaces it while the node runs, with some time in which both are valid."""

from __future__ import annotations

import datetime
import re
from typing import Final

from pgnode.api.auth import CURRENT, ApiKeys
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_and_say, settings_of, told_settings
from pgnode.cli.texts import duration
from pgnode.errors import ArgumentError, OperatorError
from pgnode.settings import Settings, read_api_key
from pgnode.settings.previous_key import PreviousKey, read_previous_key
from pgnode.supervisor.host.banner import print_panel_form
from pgnode.supervisor.host.identity import Identity, machine_addresses
from pgnode.supervisor.host.key_rotation import forget_previous_key, rotate_key

#: The longest time for which two keys are valid.
OVERLAP_MAX: Final = datetime.timedelta(days=90)

#: Characters of a key that tell it from others.
KEY_SHOWN: Final = 4

#: Seconds after which all workers have read the files again.
TAKEN_SECONDS: Final = 2

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def show_key(named: Named, *, block: bool = False, json_wanted: bool = False) -> int:
    """Print the key alone, or all that a panel's form asks for.

    Args:
        named: What the operator said about which node is meant.
        block: Print the form.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: There is no key, or it may not be read.
    """
    _, settings, of_api_key = _find(named)
    key = _key(settings, of_api_key=of_api_key)
    if json_wanted:
        previous = _previous(settings)
        Screen().json(
            {
                "key": key,
                "previous_until": None if previous is None else previous.until.timestamp(),
                **(_form(settings) if block else {}),
            }
        )
    elif block:
        _certificate(settings)
        print_panel_form(settings, Identity(key, key_is_new=True, cert_is_new=True))
    else:
        say(key)
    return 0


def rotate(named: Named, *, overlap: str = "24h", json_wanted: bool = False) -> int:
    """Make a new key. The running node takes it by itself.

    Args:
        named: What the operator said about which node is meant.
        overlap: For how long the key that there is stays valid.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: The key stays as it is; the text says why.
    """
    span = parse_overlap(overlap)
    target, settings, of_api_key = _find(named)
    _require_file(settings, of_api_key=of_api_key)
    _key(settings, of_api_key=of_api_key)
    before = _previous(settings)
    new, previous = rotate_key(settings, span, datetime.datetime.now(datetime.UTC))
    note(settings, "key", "API key replaced", {"key": ApiKeys(new).digests[CURRENT], "overlap": overlap})
    if json_wanted:
        Screen().json({"key": new, "previous_until": None if previous is None else previous.until.timestamp()})
        return 0
    say(f"new key   {new[:KEY_SHOWN]}…  (whole: pgnode key show)  put it into the panel now")
    if previous is None:
        say("old key   not valid any more")
    else:
        say(f"old key   valid until {_time(previous)}  (end it before: pgnode key forget-previous)")
    if before is not None:
        say(f"the key before that, which was valid until {_time(before)}, is not valid any more")
    _say_when(target)
    return 0


def forget_previous(named: Named, *, json_wanted: bool = False) -> int:
    """Have the previous key end now. Raise OperatorError where it stays as it is."""
    target, settings, of_api_key = _find(named)
    _require_file(settings, of_api_key=of_api_key)
    forgotten = forget_previous_key(settings)
    if forgotten:
        note(settings, "key", "previous API key ended")
    if json_wanted:
        Screen().json({"forgotten": forgotten})
    elif forgotten:
        say("the previous key is not valid any more")
        _say_when(target)
    else:
        say("there is no previous key: the current one alone is valid")
    return 0


def parse_overlap(text: str) -> datetime.timedelta:
    """Read a time such as 24h.

    Args:
        text: 0, or a number with s, m, h or d behind it.

    Returns:
        The time.

    Raises:
        ArgumentError: It is none, or too long.
    """
    found = re.fullmatch(r"(\d{1,7})([smhd])|0", text.strip(), re.ASCII)
    if found is not None:
        span = datetime.timedelta(seconds=int(found[1] or 0) * _UNITS[found[2] or "s"])
        if span <= OVERLAP_MAX:
            return span
    raise ArgumentError(
        f"--overlap {text} is not allowed: give 0, or a number with s, m, h or d behind it,"
        f" such as 24h, up to {OVERLAP_MAX.days}d"
    )


def _find(named: Named) -> tuple[Target, Settings, bool]:
    """Return the node, its settings, and whether it was given API_KEY, which need not be in this environment.

    Its supervisor is asked once: one that hangs costs the whole time that it has.
    """
    target = find_and_say(named)
    said = told_settings(target)
    return target, settings_of(target, said), bool(said.get("API_KEY"))


def _key(settings: Settings, *, of_api_key: bool) -> str:
    """Return the key. Raises OperatorError."""
    if settings.api_key is None:
        if of_api_key:
            raise OperatorError("the running node's key is API_KEY of its own environment: it is shown by nobody")
        if not settings.key_file.exists():
            raise OperatorError(f"there is no {settings.key_file} yet: the node makes it at its first start")
    return read_api_key(settings)


def _require_file(settings: Settings, *, of_api_key: bool) -> None:
    """Make sure that the key is in a file. Raises OperatorError."""
    if settings.api_key is not None or of_api_key:
        raise OperatorError(
            f"the key comes from API_KEY, which cannot be rotated. Move it to a file: write it to {settings.key_file} (mode "
            "0600, or to another one, and set API_KEY_FILE), take API_KEY out of the settings, and say `pgnode reload`"
        )


def _previous(settings: Settings) -> PreviousKey | None:
    """Return the previous key where it is valid. Raises OperatorError."""
    found = read_previous_key(settings)
    return found if found is not None and found.until > datetime.datetime.now(datetime.UTC) else None


def _form(settings: Settings) -> dict[str, object]:
    """Return what a panel's form asks for, but for the key. Raises OperatorError."""
    return {
        "addresses": machine_addresses(settings) or [settings.local_host],
        "rest_port": settings.gunicorn_ports.get("SERVICE_PORT"),
        "grpc_port": settings.grpc_listen[1] if settings.grpc_worker_count else None,
        "api_port": settings.api_port,
        "certificate": _certificate(settings),
    }


def _certificate(settings: Settings) -> str:
    """Return the certificate, PEM. Raises OperatorError."""
    try:
        return settings.cert_file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise OperatorError(f"{settings.cert_file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise OperatorError(f"{settings.cert_file} holds no certificate that can be read: PEM is ASCII") from None


def _time(key: PreviousKey) -> str:
    left = (key.until - datetime.datetime.now(datetime.UTC)).total_seconds()
    return f"{key.until.astimezone():%Y-%m-%d %H:%M} ({duration(max(left, 0))} from now)"


def _say_when(target: Target) -> None:
    if target.pid is not None:
        say(f"the running node knows it within {TAKEN_SECONDS} seconds")
