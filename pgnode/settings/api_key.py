"""The API key that callers must send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgnode.errors import SettingsError
from pgnode.os_support.files import read_regular
from pgnode.settings.checks import check_uuid

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

#: Bytes that are read of a file with a key, at most.
KEY_BYTES = 4096


def read_api_key(settings: Settings) -> str:
    """Return the key that callers must send: API_KEY, else the one in its file, which the supervisor has made.

    Raise SettingsError where there is no such file, or no key in it.
    """
    if settings.api_key is not None:
        return settings.api_key
    try:
        return check_uuid(read_regular(settings.key_file, KEY_BYTES).decode())
    except OSError as error:
        raise SettingsError(f"no API key in {settings.key_file}: {error.strerror or error}") from None
    except ValueError as error:
        raise SettingsError(f"no API key in {settings.key_file}: {error}") from None
