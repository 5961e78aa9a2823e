"""Which version of a distribution is installed, and whether it is one that is known to work."""

from __future__ import annotations

import re
from importlib import metadata

_RELEASE = re.compile(r"\s*v?(\d+(?:\.\d+)*)")


class UnknownVersionError(RuntimeError):
    """A distribution is missing, or has a version that nobody has tried. ``str(error)`` says which, and what to do."""


def require(distribution: str, lower: str, upper: str) -> None:
    """Refuse a version that is not known to work.

    Args:
        distribution: Its name on the package index.
        lower: The first version that is known to work.
        upper: The first version that is not; its pre-releases are not, either.

    Raises:
        UnknownVersionError: No version of it is installed, or one outside of these bounds.
    """
    wanted = f'"{distribution}>={lower},<{upper}"'
    try:
        found = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise UnknownVersionError(
            f"{distribution} is not installed: run `make install`, or pip install {wanted}"
        ) from None
    if not _release(lower) <= _release(found) < _release(upper):
        raise UnknownVersionError(
            f"{distribution} {found} is installed, and this version of the node knows {lower} and later, before {upper}: "
            f"run `make install`, or pip install {wanted}"
        )


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without zeros at its end; none where it has none, which is before any other."""
    found = _RELEASE.match(version)
    numbers = [int(part) for part in found[1].split(".")] if found is not None else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
