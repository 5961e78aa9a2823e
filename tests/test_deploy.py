"""What stands in deploy/ agrees with the code: commands, settings and paths; and the units are as closed as they promise."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import click
import pytest

from pgnode.cli import main
from pgnode.cli.target import Places
from pgnode.settings import Settings
from pgnode.supervisor.core.log_files import append_lines
from pgnode.worker.operator_file import OperatorFile
from tests.generated_docs import ROOT

DEPLOY = ROOT / "deploy"
UNITS = [DEPLOY / "systemd" / "pgnode.service", DEPLOY / "systemd" / "pgnode@.service"]

#: API workers alone.
WORKERS = DEPLOY / "systemd" / "pgnode-worker@.service"

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


@pytest.mark.parametrize("unit", [*UNITS, WORKERS], ids=lambda unit: unit.name)
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


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_the_unit_of_workers_runs_what_there_is(kind: str) -> None:
    found, group = dict(fields(WORKERS)), main.commands["worker"]
    assert isinstance(group, click.Group)
    program, command, name, *words = found["ExecStart"].replace("%i", kind).split()
    assert (program, command) == ("/opt/pgnode/bin/pgnode", "worker")
    assert {word for word in words if word.startswith("-")} <= options_of(group.commands[name])
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert found["Environment"].split("=")[0].lower() in Settings.model_fields


def test_the_unit_of_workers_is_as_closed_as_the_nodes() -> None:
    def closed(unit: Path) -> list[tuple[str, str]]:
        found = fields(unit)
        return found[found.index(("AmbientCapabilities", "CAP_NET_BIND_SERVICE")) :]

    assert closed(WORKERS) == closed(UNITS[0])


def test_no_unit_ends_the_core_with_the_supervisor() -> None:
    for unit in UNITS:
        found = dict(fields(unit))
        assert (found["KillMode"], found["OOMPolicy"]) == ("process", "continue")
        assert found.get("RemoveIPC", "no") == "no", "it would remove a core's socket in /dev/shm"


def test_a_supervisor_that_hangs_is_replaced_for_as_long_as_it_takes() -> None:
    for unit in UNITS:
        found = dict(fields(unit))
        assert (found["Type"], found["WatchdogSignal"]) == ("notify", "SIGKILL")
        # No ExecStop, no other process that may speak for it, and every restart is one that the limit bears.
        assert not found.keys() & {"ExecStop", "ExecStopPost", "NotifyAccess", "FinalKillSignal"}
        restarts = int(found["StartLimitIntervalSec"]) / int(found["WatchdogSec"])
        assert restarts < int(found["StartLimitBurst"])


def test_the_units_are_read_as_ini_files_are() -> None:
    for unit in UNITS:
        parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
        parser.read(unit)
        assert parser.sections() == ["Unit", "Service", "Install"]


def test_logrotate_takes_the_files_and_the_node_goes_on(tmp_path: Path) -> None:
    tool = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
    if tool is None:
        pytest.skip("logrotate is not on this machine")
    logs = tmp_path / "state" / "logs"
    logs.mkdir(parents=True, mode=0o700)
    text = (DEPLOY / "systemd" / "pgnode.logrotate").read_text(encoding="utf-8")
    # The user of a service is not on every machine.
    text = text.replace(str(Places().state_dir), str(tmp_path / "state")).replace("\tsu pgnode pgnode\n", "")
    (tmp_path / "conf").write_text(text)
    (tmp_path / "conf").chmod(0o644)
    log = logs / "access.log"
    append_lines(log, b"first")
    aside = logs / "access.log.1"
    aside.write_bytes(b"set aside by the node\n")
    done = subprocess.run(
        [tool, "--force", "--state", str(tmp_path / "rotated"), str(tmp_path / "conf")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    append_lines(log, b"second")
    [rotated] = logs.glob("access.log-*")
    assert (rotated.read_bytes(), log.read_bytes()) == (b"first\n", b"second\n")
    assert aside.read_bytes() == b"set aside by the node\n"


def test_the_example_names_settings_alone() -> None:
    text = (DEPLOY / "pgnode.env.example").read_text(encoding="utf-8")
    names = set(re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.MULTILINE))
    # HTTPS_PROXY is everybody's.
    assert names - {name.upper() for name in Settings.model_fields} == {"HTTPS_PROXY"}


# --- Docker -------------------------------------------------------------------------------------------------------------

DOCKER = DEPLOY / "docker"
SCALE = DOCKER / "compose.scale.yaml"
COMPOSE = [DOCKER / "compose.yaml", DOCKER / "compose.valkey.yaml", SCALE]

#: In Valkey's own image.
VALKEYS_USER = "999:999"

#: What the image sets that is no setting of the node's.
OTHER_VARIABLES = {"PATH", "PYTHONUNBUFFERED", "PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK"}


def instructions() -> list[tuple[str, str]]:
    """Names and arguments of the Dockerfile's instructions."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined]


def test_the_image_calls_commands_that_there_are() -> None:
    last = dict(instructions())
    entry = json.loads(last["ENTRYPOINT"])
    assert entry == ["tini", "--", "pgnode"]
    assert wrong_words(json.loads(last["CMD"])) == []
    program, *words = json.loads(last["HEALTHCHECK"].split(" CMD ", 1)[1])
    assert (program, wrong_words(words)) == ("pgnode", [])
    assert last["USER"] == "10001:10001"


def test_the_image_compiles_the_standard_library(tmp_path: Path) -> None:
    """Python's own image has no compiled files of it, and the node's user may write none."""
    [command] = [
        part.strip()
        for name, text in instructions()
        for part in text.split("&&")
        if name == "RUN" and "compileall" in part and "stdlib" in part
    ]
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    found = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    *words, but, folder = found.stdout.splitlines()
    assert words == ["-m", "compileall", "-q", "-x"]
    assert folder == sysconfig.get_path("stdlib")
    assert re.search(but, f"{folder}/idlelib/run.py")
    assert not re.search(but, f"{folder}/asyncio/tasks.py")


def test_the_image_sets_and_copies_what_there_is() -> None:
    for name, text in instructions():
        if name == "ENV":
            variables = {pair.split("=", 1)[0] for pair in text.split()}
            assert {variable.lower() for variable in variables - OTHER_VARIABLES} <= Settings.model_fields.keys()
        if name == "COPY" and "--from" not in text:
            *sources, _ = text.split()
            let_in = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
            assert [source for source in sources if not (ROOT / source.removeprefix("./")).exists()] == []
            assert [source for source in sources if f"!{source.removeprefix('./')}" not in let_in] == []


def test_the_image_keeps_state_where_commands_look() -> None:
    last = dict(instructions())
    assert last["VOLUME"] == last["WORKDIR"] == str(Places().state_dir)
    assert f"STATE_DIR={Places().state_dir}" in last["ENV"]
    assert f"- state:{Places().state_dir}\n" in COMPOSE[0].read_text(encoding="utf-8")
    ports = {Settings.model_fields[name].default for name in ("service_port", "api_port", "grpc_port")}
    assert {int(port) for port in last["EXPOSE"].split()} == ports


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_name_what_there_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    named = {name for name in re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b", text) if not name.startswith("PGNODE_")}
    assert {name.lower() for name in named} <= Settings.model_fields.keys()
    assert set(re.findall(r'user: "(.*)"', plain)) - {VALKEYS_USER} == {dict(instructions())["USER"]}
    assert set(re.findall(r"dockerfile: (.*)", plain)) <= {"deploy/docker/Dockerfile"}
    services = plain.split("services:\n")[1].split("\nvolumes:\n")[0]
    for volume in re.findall(r"- (\w+):/", services):
        assert re.search(rf"^  {volume}:", plain.split("\nvolumes:\n")[1], re.MULTILINE), volume


def loaded(path: Path) -> dict[str, Any]:
    """A YAML file as the system's Python reads it: this environment has no library for that."""
    python = next((one for one in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(one).exists()), "")
    read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))"
    done = subprocess.run(
        [python or sys.executable, "-c", read, str(path)], capture_output=True, text=True, check=False
    )
    if "No module named 'yaml'" in done.stderr:
        pytest.skip("PyYAML is not on this machine")
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_the_file_of_several_hosts_is_what_its_page_says() -> None:
    """A supervisor without workers, two hosts of workers that share what they need with it, sentinels of one master."""
    services = loaded(SCALE)["services"]
    workers = {name: one for name, one in services.items() if name.startswith("workers-")}
    node = services["node"]
    assert node["environment"].pop("SERVICE_PROTOCOL") == "none"
    for name, one in {**workers, "node": node}.items():
        assert (one["image"], one["environment"], one["env_file"]) == (
            node["image"],
            node["environment"],
            node["env_file"],
        )
        assert {name.lower() for name in one["environment"]} <= Settings.model_fields.keys()
        assert wrong_words(one.get("command", ["run"])[:1]) == [], name
    assert sorted(one["command"][1] for one in workers.values()) == ["grpc", "grpc", "rest", "rest"]
    worker = main.commands["worker"]
    assert isinstance(worker, click.Group)
    assert worker.commands.keys() >= {"rest", "grpc"}
    found = Settings(**{name.lower(): value for name, value in node["environment"].items() if name == "REDIS_URL"})
    assert found.redis_url is not None
    assert found.redis_url == node["environment"]["REDIS_URL"]
    addresses = {
        name: one["networks"]["workers"]["ipv4_address"] for name, one in services.items() if "networks" in one
    }
    assert len(set(addresses.values())) == len(addresses)
    sentinels = [address for name, address in addresses.items() if name.startswith("sentinel-")]
    assert len(sentinels) == 3
    assert f"//{','.join(f'{address}:26379' for address in sentinels)}/pgnode" in found.redis_url
    for name in ("sentinel-1", "sentinel-2", "sentinel-3"):
        assert f"sentinel monitor pgnode {addresses['redis-1']} 6379 2" in services[name]["command"][2]
    text = (DEPLOY / "haproxy" / "pass-through.cfg").read_text(encoding="utf-8")
    hosts = set(re.findall(r"server host-\w ([\d.]+):", text))
    assert hosts == {addresses["workers-a"], addresses["workers-b"]}


# --- Proxies in front ---------------------------------------------------------------------------------------------------

FRONTS = [*(DEPLOY / "haproxy").glob("*.cfg"), *(DEPLOY / "nginx").glob("*.conf")]


@pytest.mark.parametrize("path", FRONTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_proxies_use_the_ports_and_settings_that_there_are(path: Path) -> None:
    """Whether they work is tried in tests/panel/test_fronts.py."""
    text = path.read_text(encoding="utf-8")
    plain = re.sub(r"#.*", "", text)
    ports = {Settings.model_fields[name].default for name in ("service_port", "api_port", "grpc_port")}
    assert {int(port) for port in re.findall(r"\b62\d{3}\b", plain)} <= ports
    named = set(re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b", text)) - {"METH_POST"}
    assert {name.removeprefix("PGNODE_").lower() for name in named} <= Settings.model_fields.keys()
    assert set(re.findall(r"/(?:readyz|livez)\b", plain)) == ({"/readyz", "/livez"} if path.suffix == ".cfg" else set())


def test_workers_behind_a_proxy_take_the_file_for_gunicorn() -> None:
    found = OperatorFile().run(DEPLOY / "haproxy" / "gunicorn_conf.py", {"proxy_protocol": "off"}, pytest.fail)
    assert found == {"proxy_protocol": "auto", "proxy_allow_ips": "192.0.2.10"}
