"""Types of values hold the library to the functions that check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pgnode.settings import value_types


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        (value_types.Port, "443", 443),
        (value_types.ListenAddress, "[::1]", "::1"),
        (value_types.UuidText, "{123E4567-E89B-42D3-A456-426614174000}", "123e4567-e89b-42d3-a456-426614174000"),
        (Annotated[Path | None, value_types.OptionalText], "", None),
        (value_types.ExistingFolder, "/", Path("/")),
        (value_types.Callers, "192.0.2.0/24,::1", "192.0.2.0/24,::1/128"),
    ],
)
def test_what_is_allowed_comes_in_its_usual_form(kind: Any, given: str, taken: object) -> None:
    assert TypeAdapter(kind).validate_python(given) == taken


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (value_types.Port, "0"),
        (value_types.ListenAddress, "localhost"),
        (value_types.UuidText, "key"),
        (value_types.GunicornFile, "/nowhere"),
        (value_types.Executable, "/"),
        (value_types.RedisUrl, "http://x"),
    ],
)
def test_what_is_not_allowed_is_refused(kind: Any, given: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(given)
