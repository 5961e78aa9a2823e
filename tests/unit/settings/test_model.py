"""The declaration of the settings; what follows from them is in test_derived.py."""

from __future__ import annotations

from pathlib import Path

from pgnode.settings.model import Settings


def test_children_may_have_the_variables_of_settings_but_for_secrets() -> None:
    settings = Settings(state_dir=Path("/s"), pass_environment="MINE,YOURS")
    assert {"SERVICE_PORT", "MINE", "YOURS"} <= settings.child_variables
    assert not {"API_KEY", "METRICS_KEY", "REDIS_URL"} & settings.child_variables
