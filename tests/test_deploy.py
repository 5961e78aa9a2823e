"""What stands in deploy/ agrees with the code: commands, settings and paths; and the units are as closed as they promise."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from pgnode.cli import main
from pgnode.cli.target import Places
from pgnode.settings import Settings
from tests.generated_docs import ROOT

DEPLOY = ROOT / "deploy"
UNITS = [DEPLOY / "systemd" / "pgnode.service", DEPLOY / "systemd" / "pgnode@.service"]

#: Tenths of what `systemd-analyze security` says at most; 100 is a unit that nothing is taken from.
EXPOSURE = 20

#: The first systemd that looks at a unit without running.
OFFLINE_SINCE = 250


def fields(unit: Path) -> list[tuple[str, str]]:
    """Names and values of a unit, in their order; a name may come more than once."""
    lines = [line.strip() for line in unit.read_text(encoding="utf-8").splitlines()]
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]  # type: ignore[misc]


def options_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def wrong_words(words: list[str]) -> list[str]:
    """Of a call of ``pgnode``, without that word: what no command of that name knows."""
    name, *rest = words
    command = main.commands.get(name)
    if command is None:
        return [name]
    return [word for word in rest if word.startswith("-") and word not in options_of(command)]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_closed(unit: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not on this machine")
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    if int(re.findall(r"\d+", said)[0]) < OFFLINE_SINCE:
        pytest.skip(f"systemd-analyze is older than {OFFLINE_SINCE}: it looks only at units that are installed")
    looked = subprocess.run(
        [tool, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert looked.returncode == 0, looked.stdout[-400:] + looked.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_names_what_there_is(unit: Path) -> None:
    found = fields(unit)
    for name, value in found:
        if name.startswith("Exec"):
            program, *words = value.split()
            assert (program, wrong_words(words)) == ("/opt/pgnode/bin/pgnode", []), name
    assert {"ExecStart", "ExecReload"} <= dict(found).keys()
    variables = {value.split("=", 1)[0] for name, value in found if name == "Environment"}
    assert {name.lower() for name in variables} <= Settings.model_fields.keys()


def test_units_use_the_places_where_commands_look() -> None:
    one, several = (dict(fields(unit)) for unit in UNITS)
    places = Places()
    assert one["ExecStart"].endswith(f" --env-file {places.env_file}")
    assert several["ExecStart"].endswith(f" --env-file {places.env_folder}/%i.env")
    assert one["Environment"] == f"STATE_DIR={places.state_dir}"
    assert several["Environment"] == f"STATE_DIR={places.state_dir}/%i"


def test_both_units_are_the_same_but_for_the_name() -> None:
    one, several = (fields(unit) for unit in UNITS)
    without = [
        (name, value.replace("/%i.env", ".env").replace("/%i", "").replace(" %i", "")) for name, value in several
    ]
    assert without == one


def test_no_unit_ends_the_core_with_the_supervisor() -> None:
    for unit in UNITS:
        found = dict(fields(unit))
        assert (found["KillMode"], found["OOMPolicy"]) == ("process", "continue")
        assert found.get("RemoveIPC", "no") == "no", "it would remove a core's socket in /dev/shm"


def test_the_units_are_read_as_ini_files_are() -> None:
    for unit in UNITS:
        parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
        parser.read(unit)
        assert parser.sections() == ["Unit", "Service", "Install"]


def test_the_example_names_settings_alone() -> None:
    text = (DEPLOY / "pgnode.env.example").read_text(encoding="utf-8")
    names = set(re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.MULTILINE))
    # HTTPS_PROXY is everybody's.
    assert names - {name.upper() for name in Settings.model_fields} == {"HTTPS_PROXY"}
