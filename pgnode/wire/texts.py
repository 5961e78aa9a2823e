"""Texts that callers give: how long they may be, what they may not hold, and how they are shown in errors and logs. Pure."""

from __future__ import annotations

from typing import Final

#: Characters of an e-mail, at most.
EMAIL_CHARACTERS_MAX: Final = 256

#: Characters of a caller's text that an error or a log line shows. It may be a secret in the wrong place.
SHOWN_CHARACTERS: Final = 40

#: Characters of a path that an error shows.
PATH_CHARACTERS_MAX: Final = 100

#: What stands between the parts of the names of the core's counters.
COUNTER_SEPARATOR: Final = ">>>"


def shown(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Return a caller's text as errors and logs show it: in quotes, cut, and with nothing in it that a terminal obeys.

    Args:
        text: The text, however long.
        characters: How many of its characters are shown, at most.

    Returns:
        The text in quotes, on one line.
    """
    return repr(text if len(text) <= characters else text[:characters] + "…")


def name_shown(name: str) -> str:
    """Return the name of a user as errors show it: as it is where a user can have it, else as :func:`shown` does."""
    return name if len(name) <= EMAIL_CHARACTERS_MAX and control_character(name) is None else shown(name)


def path_shown(path: str) -> str:
    """Return what a caller asked for as errors show it: as it is where it can be a path, else as :func:`shown` does."""
    return path if len(path) <= PATH_CHARACTERS_MAX and path.isprintable() else shown(path, PATH_CHARACTERS_MAX)


def control_character(text: str) -> str | None:
    """Return the first control character of a text, None where it has none."""
    if text.isprintable():
        return None
    return next((c for c in text if c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029"), None)


def email_fault(email: str) -> str | None:
    """Say why no user can have this e-mail.

    Args:
        email: The e-mail.

    Returns:
        The cause, for the caller; None where a user can have it.
    """
    if email and len(email) <= EMAIL_CHARACTERS_MAX and email.isprintable() and COUNTER_SEPARATOR not in email:
        # As nearly all are; this is asked of every user of a full set.
        return None
    if not email:
        return "the e-mail is empty"
    if len(email) > EMAIL_CHARACTERS_MAX:
        return f"the e-mail has {len(email):,} characters, {EMAIL_CHARACTERS_MAX} are allowed"
    if (found := control_character(email)) is not None:
        return f"the e-mail has the control character {found!r}"
    if COUNTER_SEPARATOR in email:
        return (
            f'the e-mail has "{COUNTER_SEPARATOR}", which the core puts between the parts of the names of its counters'
        )
    return None
