"""What the package offers is there when it is asked for."""

from __future__ import annotations

import pytest

from pgnode import settings


def test_every_name_is_found_once_it_is_used() -> None:
    for name in settings.__all__:
        assert getattr(settings, name).__name__ == name
    assert set(settings._PLACES) == set(settings.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        settings.nothing  # noqa: B018
