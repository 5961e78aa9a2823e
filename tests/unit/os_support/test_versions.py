"""A distribution with a version that is not known is refused, with a sentence that says what to do."""

from __future__ import annotations

from importlib import metadata
from unittest import mock

import pytest

from pgnode.os_support.versions import UnknownVersionError, require


@pytest.mark.parametrize("found", ["27.0.1", "27.0.1.post1", "27.9", "27.10.0", "v27.0.2"])
def test_known(found: str) -> None:
    with mock.patch.object(metadata, "version", return_value=found):
        require("gunicorn", "27.0.1", "28")


@pytest.mark.parametrize("found", ["27", "27.0.0", "28", "28.0", "28.0.0rc1", "28.1", "3.9", "", "unknown"])
def test_unknown(found: str) -> None:
    with mock.patch.object(metadata, "version", return_value=found), pytest.raises(UnknownVersionError) as caught:
        require("gunicorn", "27.0.1", "28")
    text = str(caught.value)
    assert text.startswith(
        f"gunicorn {found} is installed, and this version of the node knows 27.0.1 and later, before 28"
    )
    assert 'pip install "gunicorn>=27.0.1,<28"' in text


def test_missing() -> None:
    with pytest.raises(UnknownVersionError, match=r"no-such-distribution is not installed: .*pip install"):
        require("no-such-distribution", "1", "2")


def test_bounds_may_end_in_zeros() -> None:
    with mock.patch.object(metadata, "version", return_value="1"):
        require("x", "1.0.0", "2.0")
