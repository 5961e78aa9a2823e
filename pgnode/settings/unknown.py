"""Names that look like settings and are none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

#: How alike two names are, from 0 to 1, so that one is taken for a slip of the other: two wrong letters of twelve.
ALIKE = 0.85

#: Letters that may be missing, or be too many: NIX_SSL_CERT_FILE is no slip of SSL_CERT_FILE.
LETTERS = 2


def sentences_about_unknown(
    in_file: Iterable[str],
    in_environment: Iterable[str],
    known: Iterable[str],
    *,
    named_file: str = "",
    in_named_file: Iterable[str] = (),
) -> Iterator[str]:
    """Say which variables mean nothing, and what was probably meant.

    Of the environment only slips are named, since most of it is for other programs; and so it is of a file that was named, whose
    other names become variables of the node.

    Args:
        in_file: Names in the ``.env`` file, in capitals.
        in_environment: Names in the environment.
        known: The names of all settings, in capitals.
        named_file: A file of settings that was named.
        in_named_file: Names in it, in capitals.

    Yields:
        A sentence for each.
    """
    settings = sorted(known)
    for name in sorted(set(in_file) - set(settings)):
        meant = _meant(name, settings)
        yield f"{name} in .env means nothing here" + (f": did you mean {meant}?" if meant else "")
    named = set(in_named_file) - set(settings)
    for name in sorted(named):
        if meant := _meant(name, settings):
            yield f"{name} in {named_file} means nothing here: did you mean {meant}?"
    for name in sorted({name.upper() for name in in_environment} - set(settings) - set(in_file) - named):
        if meant := _meant(name, settings):
            yield f"{name} in the environment means nothing here: did you mean {meant}?"


def _meant(name: str, settings: list[str]) -> str:
    near = [known for known in settings if abs(len(known) - len(name)) <= LETTERS]
    return next(iter(get_close_matches(name, near, 1, ALIKE)), "")
