"""The maintenance API's own forms: JSON bodies, versions of a core, regions of geo files. Pure.

A request is a JSON object or empty; a success is a JSON object with ``detail``. The panel sends ``core_version`` as "latest",
"26.10.10" or "v26.10.10", and ``region`` as one of :data:`REGIONS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final, Literal

from pgnode.errors import InvalidRequestError
from pgnode.wire.json_depth import is_too_deep
from pgnode.wire.texts import shown

Region = Literal["iran", "china", "russia"]

REGIONS: Final[tuple[Region, ...]] = ("iran", "china", "russia")

LATEST: Final = "latest"


_VERSION = re.compile(r"v?(\d{1,4}\.\d{1,4}\.\d{1,4})", re.ASCII)


def object_of(body: bytes, fields: Collection[str]) -> dict[str, Any]:
    """Read a request.

    Args:
        body: A JSON object, or nothing.
        fields: The fields that the call takes.

    Returns:
        The object, {} for an empty body.

    Raises:
        InvalidRequestError: The body is anything else, or has an unknown field.
    """
    if not body.strip():
        return {}
    try:
        found = json.loads(body)
    except UnicodeDecodeError:
        raise InvalidRequestError("malformed JSON: the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"malformed JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except (RecursionError, ValueError):
        raise InvalidRequestError("malformed JSON: nested too deep, or a number too long") from None
    if is_too_deep(found):
        raise InvalidRequestError("malformed JSON: nested too deep, or a number too long")
    if not isinstance(found, dict):
        raise InvalidRequestError(f"wrong JSON: the body is {_kind(found)}, an object is needed")
    for name in found:
        if name not in fields:
            known = f"known: {', '.join(fields)}" if fields else "this call takes none"
            raise InvalidRequestError(f"unknown field {shown(name)}: {known}")
    return found


def text_of(document: dict[str, Any], field: str) -> str:
    """Return a field that must be there and be a string; raise InvalidRequestError with its name."""
    if field not in document:
        raise InvalidRequestError(f"{field} is missing: send a JSON object with it")
    value = document[field]
    if not isinstance(value, str):
        raise InvalidRequestError(f"{field} is {_kind(value)}: a string is needed")
    return value


def core_version_of(text: str) -> str:
    """Return "latest", or a version without its "v"; raise InvalidRequestError for anything else."""
    word = text.strip()
    if word.lower() == LATEST:
        return LATEST
    found = _VERSION.fullmatch(word)
    if found is None:
        raise InvalidRequestError(
            f'core_version {shown(text)} is not known: known are "latest" and versions such as "26.10.10" or "v26.10.10"'
        )
    return found[1]


def region_of(text: str) -> Region:
    """Return one of :data:`REGIONS`; raise InvalidRequestError for anything else."""
    word = text.strip().lower()
    for region in REGIONS:
        if word == region:
            return region
    raise InvalidRequestError(f"region {shown(text)} is not known: known are {', '.join(REGIONS)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names[type(value)]
