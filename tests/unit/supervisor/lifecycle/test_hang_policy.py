"""When a core hangs, by what was seen of it: looks as they would come, one after the other."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pgnode.supervisor.lifecycle.hang_policy import HangPolicy, Look, Sign

ALIVE, SILENT, UNKNOWN = Sign.ALIVE, Sign.SILENT, Sign.UNKNOWN


def verdicts(looks: Iterable[tuple[float, float, Sign]], run: str = "1") -> list[float]:
    """What 60 s and gaps of 20 s make of looks: when each began, when it ended, and what it saw."""
    policy = HangPolicy(60, 20)
    return [policy.saw(Look(run, began, ended, sign)) for began, ended, sign in looks]


def silence(first: float, last: float, step: float = 10.0) -> list[tuple[float, float, Sign]]:
    count = int((last - first) / step)
    return [(first + step * number, first + step * (number + 1), SILENT) for number in range(count)]


def test_silence_for_the_whole_time_is_a_hang() -> None:
    assert verdicts([(0, 1, ALIVE), *silence(2, 52)]) == [0] * 6
    assert verdicts([(0, 1, ALIVE), *silence(2, 62)])[-1] == 60
    assert verdicts([(0, 1, ALIVE), *silence(2, 72)])[-2:] == [60, 70]


@pytest.mark.parametrize("sign", [ALIVE, UNKNOWN])
def test_a_sign_of_life_or_not_knowing_begins_anew(sign: Sign) -> None:
    seen = verdicts([*silence(0, 50), (50, 55, sign), *silence(55, 105)])
    assert not any(seen)
    assert verdicts([*silence(0, 50), (50, 55, sign), *silence(55, 115)])[-1] == 60


def test_a_supervisor_that_was_stopped_did_not_see_anything() -> None:
    """Two minutes pass between two looks, or within one."""
    assert not any(verdicts([*silence(0, 50), (170, 175, SILENT)]))
    assert not any(verdicts([*silence(0, 50), (50, 170, SILENT), (170, 180, SILENT)]))
    assert not any(verdicts([(0, 120, SILENT)]))
    assert verdicts([*silence(0, 50), (50, 170, SILENT), *silence(170, 230)])[-1] == 60


def test_each_core_has_its_own_silence() -> None:
    policy = HangPolicy(60, 20)
    for began, ended, sign in silence(0, 50):
        assert not policy.saw(Look("1", began, ended, sign))
    assert not policy.saw(Look("2", 50, 60, SILENT))
    assert not policy.saw(Look("2", 60, 70, SILENT))
    assert "60 s" in repr(policy)
