"""The API key before the last rotation, which stays valid for some time: the file ``api_key.previous`` beside the key's own."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgnode.errors import SettingsError
from pgnode.os_support.files import read_regular
from pgnode.settings.api_key import KEY_BYTES
from pgnode.settings.checks import check_uuid

if TYPE_CHECKING:
    from pgnode.settings.model import Settings


@dataclass(frozen=True, slots=True)
class PreviousKey:
    """A key, and until when it is valid."""

    key: str
    until: datetime.datetime

    def __repr__(self) -> str:
        return f"PreviousKey(until {self.until:%Y-%m-%d %H:%M:%S})"

    def encode(self) -> str:
        """Return it as it stands in its file: the key, and a time of RFC 3339."""
        return f"{self.key} {self.until.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}\n"

    @classmethod
    def decode(cls, text: str) -> PreviousKey:
        """Read what :meth:`encode` wrote. ValueError where it is something else."""
        key, _, until = text.strip().partition(" ")
        parsed = datetime.datetime.fromisoformat(until)
        if parsed.tzinfo is None:
            raise ValueError("the time has no zone")
        return cls(check_uuid(key), parsed)


def previous_key_file(settings: Settings) -> Path:
    """Return the file of the previous key."""
    return settings.key_file.with_name(f"{settings.key_file.name}.previous")


def read_previous_key(settings: Settings) -> PreviousKey | None:
    """Read the previous key.

    Args:
        settings: Where it is.

    Returns:
        The key, which may have ended; None where there is none, as with API_KEY.

    Raises:
        SettingsError: There is something else in its place.
    """
    if settings.api_key is not None:
        return None
    path = previous_key_file(settings)
    try:
        return PreviousKey.decode(read_regular(path, KEY_BYTES).decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; let this user read it, or remove it") from None
    except ValueError:
        raise SettingsError(
            f"{path} does not hold a key and until when it is valid: remove it, then that key is valid no more"
        ) from None
