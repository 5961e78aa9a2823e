"""Gunicorn's own word on its settings."""

from __future__ import annotations

import pytest

from pgnode.worker.gunicorn_settings import check_setting, known_settings, takes_proxy_protocol


def test_settings_are_checked_by_gunicorn_itself() -> None:
    assert {"bind", "workers", "worker_class", "post_fork"} <= known_settings()
    check_setting("workers", 3)
    with pytest.raises(ValueError, match="many"):
        check_setting("workers", "many")


@pytest.mark.parametrize(
    ("value", "takes"),
    [("off", False), (False, False), (None, False), ("v1", True), ("v2", True), ("auto", True), (True, True)],
)
def test_what_names_callers(value: object, takes: bool) -> None:
    assert takes_proxy_protocol(value) is takes
