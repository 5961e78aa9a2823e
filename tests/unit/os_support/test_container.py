"""A container is known by its files, or by its environment."""

from __future__ import annotations

from pathlib import Path

from pgnode.os_support.container import MARKS, VARIABLES, in_container


def test_what_tells_of_a_container(tmp_path: Path) -> None:
    mark = tmp_path / ".containerenv"
    assert not in_container({}, [mark])
    for name in VARIABLES:
        assert in_container({name: "podman"}, [mark])
        assert not in_container({name: ""}, [mark])
    mark.touch()
    assert in_container({}, [tmp_path / "other", mark])
    assert {str(path) for path in MARKS} == {"/.dockerenv", "/run/.containerenv"}
