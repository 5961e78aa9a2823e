"""Scripts for machines."""

from __future__ import annotations

import pytest

from pgnode.testing.playbook import Playbook


def step(state: int, event: int) -> tuple[int, list[str]]:
    """Add up, and ask for as many things as were added."""
    return state + event, [f"{state}+{number}" for number in range(event)]


def test_a_script_that_is_followed() -> None:
    with Playbook(step, 1) as script:
        script >> 2 << "1+0" << "1+1" >> 0 >> 1 << "3+0"
        script >> len << "4+0" << "4+1" << "4+2"
    assert script.state == 7
    assert script.end() == 7


@pytest.mark.parametrize("expected", ["1+0", "1+1"])
def test_what_is_left_over_is_an_error(expected: str) -> None:
    script = Playbook(step, 1, "addition") >> 2
    with pytest.raises(AssertionError, match="addition line"):
        (script << expected) >> 1


def test_what_was_not_asked_for_is_an_error() -> None:
    with pytest.raises(AssertionError, match="nothing more was asked for"), Playbook(step, 1) as script:
        script >> 1 << "1+0" << "more"


def test_skipping_goes_on_until_an_action_of_a_kind_comes() -> None:
    script = Playbook[int, int, object](lambda state, event: (state + event, [state if state > 3 else "no"]), 1)
    assert (script >> 1).skip_to(int, lambda _action: 1).actions == ["no", "no", "no", 4]
