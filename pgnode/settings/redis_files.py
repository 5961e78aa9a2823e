"""The files that settings of Redis name: a password, the certificates of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from pgnode.errors import SettingsError
from pgnode.os_support.files import read_regular
from pgnode.settings.redis_address import RedisKind, has_credentials, parse, speaks_tls
from pgnode.settings.shown import shown_url

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

#: Bytes of a file with a password at most.
_PASSWORD_BYTES = 4096

#: Settings that mean nothing without REDIS_URL.
_BESIDE_THE_URL = (
    "redis_user",
    "redis_password",
    "redis_password_file",
    "redis_ca_file",
    "redis_cert_file",
    "redis_key_file",
    "redis_sentinel_user",
    "redis_sentinel_password",
    "redis_sentinel_password_file",
)


def read_password(path: Path) -> str:
    """Read a password from the first line of its file.

    Args:
        path: The file.

    Returns:
        The password.

    Raises:
        OSError: It cannot be read, or there is no password in it.
    """
    try:
        lines = read_regular(path, _PASSWORD_BYTES).decode().splitlines()
    except ValueError as error:
        raise OSError(f"{path}: {error}") from None
    if not lines or not lines[0]:
        raise OSError(f"{path} has no password in its first line")
    return lines[0]


def check_redis(settings: Settings) -> None:
    """Check what is set beside REDIS_URL against it, and that the files can be used.

    Args:
        settings: The node's settings, each checked by itself.

    Raises:
        SettingsError: They do not fit together, or a file cannot be used.
    """
    url = settings.redis_url
    if url is None:
        named = [name.upper() for name in _BESIDE_THE_URL if getattr(settings, name) is not None]
        if named:
            raise SettingsError(
                f"{named[0]} is set, but REDIS_URL is not: set REDIS_URL, or unset {' and '.join(named)}"
            )
        return
    _check_credentials(settings, url)
    _check_tls(settings, url)


def _check_credentials(settings: Settings, url: str) -> None:
    beside = [
        name for name in ("redis_user", "redis_password", "redis_password_file") if getattr(settings, name) is not None
    ]
    if beside and has_credentials(url):
        raise SettingsError(
            f"{beside[0].upper()} is set, and REDIS_URL={shown_url(url)} names a user or a password as well: leave one "
            "of them out"
        )
    of_sentinels = [name for name in _BESIDE_THE_URL if "sentinel" in name and getattr(settings, name) is not None]
    if of_sentinels and parse(url).kind is not RedisKind.SENTINEL:
        raise SettingsError(
            f"{of_sentinels[0].upper()} is set, but REDIS_URL={shown_url(url)} names no sentinels: unset it, or write "
            "redis+sentinel://…"
        )
    for kind in ("redis", "redis_sentinel"):
        password, path = getattr(settings, f"{kind}_password"), getattr(settings, f"{kind}_password_file")
        name = kind.upper()
        if password is not None and path is not None:
            raise SettingsError(f"{name}_PASSWORD and {name}_PASSWORD_FILE are both set: unset one of them")
        if getattr(settings, f"{kind}_user") is not None and password is None and path is None:
            raise SettingsError(
                f"{name}_USER is set, but no password is: set {name}_PASSWORD_FILE, or {name}_PASSWORD, too"
            )
        if path is not None:
            try:
                read_password(path)
            except OSError as error:
                raise SettingsError(
                    f"{name}_PASSWORD_FILE={path} cannot be used: {error.strerror or error}; give a file with the password in "
                    "its first line that the node's user may read"
                ) from None


def _check_tls(settings: Settings, url: str) -> None:
    ca, certificate, key = settings.redis_ca_file, settings.redis_cert_file, settings.redis_key_file
    named = {"REDIS_CA_FILE": ca, "REDIS_CERT_FILE": certificate, "REDIS_KEY_FILE": key}
    given = [name for name, path in named.items() if path is not None]
    if given and not speaks_tls(url):
        raise SettingsError(
            f"{given[0]} is set, but REDIS_URL={shown_url(url)} speaks no TLS: write rediss in place of redis, or unset it"
        )
    if (certificate is None) != (key is None):
        there, missing = ("REDIS_CERT_FILE", "REDIS_KEY_FILE") if key is None else ("REDIS_KEY_FILE", "REDIS_CERT_FILE")
        raise SettingsError(f"{there} is set, but {missing} is not: set both, or neither where Redis asks for none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise SettingsError(
                f"REDIS_CA_FILE={ca} cannot be used: {_reason(error)}; give a PEM file with the certificates of the CAs "
                "that signed Redis's"
            ) from None
    if certificate is not None and key is not None:
        for name, path in (("REDIS_CERT_FILE", certificate), ("REDIS_KEY_FILE", key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise SettingsError(
                    f"{name}={path} cannot be used: {_reason(error)}; give a PEM file that the node's user may read"
                ) from None
        try:
            # A key that asks for a password would stop the node at a terminal.
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except OSError as error:
            raise SettingsError(
                f"REDIS_CERT_FILE={certificate} and REDIS_KEY_FILE={key} cannot be used: {_reason(error)}; give a certificate "
                "and its key, without a password, as PEM"
            ) from None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            "it is no such PEM file"
            if error.reason in (None, "NO_CERTIFICATE_OR_CRL_FOUND")
            else error.reason.lower().replace("_", " ")
        )
    return error.strerror or str(error)
