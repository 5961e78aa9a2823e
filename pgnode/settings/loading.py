"""Reads the settings and checks them against each other; a wrong value becomes one sentence for the operator."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pgnode.errors import SettingsError
from pgnode.os_support.log_text import printable
from pgnode.settings.derived import SECRET_FIELDS
from pgnode.settings.env_file import ENV_FILE, faulty_lines, names_in_env_file, usable_env_file, values_in_env_file
from pgnode.settings.model import Settings
from pgnode.settings.redis_files import check_redis
from pgnode.settings.shown import shorten, shown_url
from pgnode.settings.unknown import sentences_about_unknown

#: Longest path of a unix socket that every Linux accepts (sun_path holds 108 bytes with the final NUL).
MAX_SOCKET_PATH_BYTES = 107

#: What ends a path, or stands for something else, where the core or the gRPC library reads one: half a character, and these.
_NO_ADDRESS = re.compile("[\ud800-\udfff,%?#]")


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment and from ``.env``, of which the environment wins.

    ``overrides``, by field name, win over both. STATE_DIR becomes an absolute path. Raise SettingsError where a value is not
    allowed; its text names the variable, the value and what is allowed.
    """
    _check_lines(ENV_FILE)
    in_file = names_in_env_file() - {name.upper() for name in (*os.environ, *overrides)}
    try:
        settings = Settings(**{"_env_file": usable_env_file(), **overrides})
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(item), in_file) for item in error.errors())) from None
    settings = _certificate_files(settings)
    _check_protocols(settings)
    _check_ports(settings)
    check_redis(settings)
    absolute = _absolute(settings.state_dir)
    longest = absolute / "run" / "core.scratch.sock"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise SettingsError(
            f"STATE_DIR={absolute} is too long: paths of unix sockets in it may have {MAX_SOCKET_PATH_BYTES} bytes "
            "at most; choose a shorter folder"
        )
    unusable = _NO_ADDRESS.search(str(absolute))
    if unusable is not None:
        raise SettingsError(
            f"STATE_DIR={printable(str(absolute))} holds {printable(repr(unusable[0]))}, which no address of its sockets can "
            "have: choose another folder"
        )
    return settings.model_copy(update={"state_dir": absolute})


def load_from(env_file: Path | None, **overrides: Any) -> Settings:
    """Read the settings of the node that a file of settings belongs to.

    What ``env_file`` sets wins over the environment and over ``.env``; without one this is :func:`load`. ``overrides``, by field
    name, win over all of it. Raise SettingsError where the file cannot be read, or a value is not allowed.
    """
    if env_file is None:
        return load(**overrides)
    known = Settings.model_fields
    _check_lines(env_file)
    values = {name.lower(): value for name, value in values_in_env_file(env_file).items() if name.lower() in known}
    try:
        return load(**{**values, **overrides})
    except SettingsError as error:
        raise SettingsError(f"{env_file}: {error}") from None


def _check_lines(env_file: Path) -> None:
    """Refuse a file in which a line that is about a setting sets nothing: what is set there would not be so."""
    for line in faulty_lines(env_file):
        if line.name.lower() in Settings.model_fields:
            raise SettingsError(
                f"line {line.number} of {Path.cwd() / env_file} is about {line.name} and sets nothing: write {line.name}=VALUE, "
                "and behind a value in quotes nothing but a remark"
            )


def _absolute(folder: Path) -> Path:
    """Return the state folder as an absolute path. Raises SettingsError."""
    try:
        absolute = folder.expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"STATE_DIR={folder} is not allowed: {error}; give an absolute path") from None
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in str(absolute)):
        raise SettingsError(
            f"STATE_DIR={str(absolute)!r} is not allowed: it holds a control character; choose another folder"
        )
    return absolute


def _check_protocols(settings: Settings) -> None:
    """Refuse settings with which nothing would be served."""
    if settings.service_protocol == "grpc" and settings.grpc_workers == 0:
        raise SettingsError(
            "GRPC_WORKERS=0 is not allowed: with SERVICE_PROTOCOL=grpc nothing would be served; allowed is 1 or more"
        )
    if settings.service_protocol == "none" and settings.redis_url is None:
        raise SettingsError(
            "SERVICE_PROTOCOL=none is not allowed without REDIS_URL: nothing would be served; set REDIS_URL, over which "
            "`pgnode worker` meets this node, or serve `both`, `rest` or `grpc` here"
        )


def _check_ports(settings: Settings) -> None:
    """Refuse two settings that name the same port."""
    known: dict[int, str] = {}
    for name, (_, port) in settings.ports.items():
        if port in known:
            raise SettingsError(f"{name}={port} is not allowed: {known[port]} is the same; give each a port of its own")
        known[port] = name


def _certificate_files(settings: Settings) -> Settings:
    """Return ``settings`` with SSL_CERT_FILE and SSL_KEY_FILE as a pair of existing files, or without both."""
    if settings.ssl_key_file is None:
        # OpenSSL reads SSL_CERT_FILE as its list of trusted CAs, and many machines set it for that.
        return settings.model_copy(update={"ssl_cert_file": None})
    if settings.ssl_cert_file is None:
        raise SettingsError(
            "SSL_CERT_FILE is not set but SSL_KEY_FILE is: set both, or neither for a certificate of the node's own"
        )
    for name, path in (("SSL_CERT_FILE", settings.ssl_cert_file), ("SSL_KEY_FILE", settings.ssl_key_file)):
        if not path.is_file():
            raise SettingsError(f"{name}={path} is not allowed: there is no such file; give the path of a PEM file")
    return settings


def unknown_settings(env_file: Path | None = None) -> list[str]:
    """Find variables that look like settings and are none.

    Args:
        env_file: A file of settings that was named; None for none.

    Returns:
        A sentence for each.

    Raises:
        SettingsError: A file cannot be read.
    """
    known = [name.upper() for name in Settings.model_fields]
    named = names_in_env_file(env_file) if env_file is not None else ()
    files = {Path.cwd() / file for file in (ENV_FILE, env_file) if file is not None}
    return [
        *(
            f"line {line.number} of {file} sets nothing: write NAME=VALUE"
            for file in sorted(files)
            for line in faulty_lines(file)
        ),
        *sentences_about_unknown(names_in_env_file(), os.environ, known, named_file=str(env_file), in_named_file=named),
    ]


def other_variables(env_file: Path) -> dict[str, str]:
    """Read what a file of settings sets beside settings, for the environment of the node: HTTPS_PROXY, say.

    Args:
        env_file: The file.

    Returns:
        Names and values.

    Raises:
        SettingsError: The file cannot be read.
    """
    return {
        name: value for name, value in values_in_env_file(env_file).items() if name.lower() not in Settings.model_fields
    }


def _allowed(item: Mapping[str, Any]) -> str:
    """Say what is allowed, in the voice of our own checks; "" where the error says so itself."""
    limits = item.get("ctx") or {}
    match item["type"]:
        case "int_parsing" | "int_from_float" | "int_type":
            return "allowed is a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "allowed is a number"
        case "bool_parsing" | "bool_type":
            return "allowed is true or false"
        case "literal_error":
            return f"allowed is {limits['expected']}"
        case "greater_than_equal":
            return f"allowed is {limits['ge']:g} and more"
        case "less_than_equal":
            return f"allowed is {limits['le']:g} at most"
    return ""


def _sentence(item: Mapping[str, Any], in_file: Set[str]) -> str:
    """Say what is wrong with one value; ``item`` is one of pydantic's errors, ``in_file`` are names that .env gives."""
    field = str(item["loc"][0]) if item["loc"] else "?"
    value = str(item.get("input"))
    if field == "redis_url":
        value = shown_url(value)
    elif field in SECRET_FIELDS:
        value = shorten(value)
    where = " in .env" if field.upper() in in_file else ""
    reason = _allowed(item) or str(item["msg"]).removeprefix("Value error, ")
    return f"{field.upper()}={value}{where} is not allowed: {reason[:1].lower()}{reason[1:]}"
