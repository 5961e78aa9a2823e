"""The offline bundle and the installer: what is in the one, and that the other is a script that shells take."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from pgnode import __version__
from tests.generated_docs import ROOT

DEPLOY = ROOT / "deploy"
INSTALLER = DEPLOY / "install.sh"


@pytest.fixture(scope="module")
def bundler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_bundle", DEPLOY / "make_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, name: str, version: str, *headers: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *headers]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n\nName: not this one\n")
    return path


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    needs = ("Requires-Dist: Small.Thing>=1", "Requires-Dist: fast-thing; extra == 'fast'", "License-Expression: MIT")
    wheel(tmp_path / "dist", "pgnode", __version__, *needs)
    wheel(tmp_path / "wheels", "small-thing", "1.2", "Classifier: License :: OSI Approved :: BSD License")
    wheel(tmp_path / "wheels", "setuptools", "80.0")
    return tmp_path / "dist"


def test_the_bundle_has_all_that_an_installation_needs(bundler: ModuleType, dist: Path) -> None:
    archive = bundler.make_bundle(dist, dist.parent / "wheels")
    top = archive.name.removesuffix(".tar.gz")
    assert top.startswith(f"pgnode-{__version__}-offline-cp3")
    with tarfile.open(archive) as tar:
        names = {member.name.removeprefix(f"{top}/") for member in tar.getmembers()}
        sums = tar.extractfile(f"{top}/SHA256SUMS")
        lines = tar.extractfile(f"{top}/requirements.txt")
        installer = tar.getmember(f"{top}/install.sh")
        assert sums is not None
        assert lines is not None
        summed = {line.split("  ")[1]: line.split("  ")[0] for line in sums.read().decode().splitlines()}
        wanted = lines.read().decode().splitlines()
    assert {"install.sh", "requirements.txt", "sbom.cdx.json", "systemd/pgnode.service", "pgnode.env.example"} <= names
    assert {name for name in names if name.startswith("wheels/")} == {
        f"wheels/pgnode-{__version__}-py3-none-any.whl",
        "wheels/small_thing-1.2-py3-none-any.whl",
    }, "what only builds is left out"
    assert summed.keys() == names - {"SHA256SUMS"}
    assert installer.mode == 0o755
    digest = hashlib.sha256((dist.parent / "wheels" / "small_thing-1.2-py3-none-any.whl").read_bytes()).hexdigest()
    assert wanted[1:] == [f"small-thing==1.2 --hash=sha256:{digest}"]


def test_the_bundle_of_the_same_files_is_the_same(bundler: ModuleType, dist: Path) -> None:
    first = bundler.make_bundle(dist, dist.parent / "wheels").read_bytes()
    assert bundler.make_bundle(dist, dist.parent / "wheels").read_bytes() == first


def test_the_sbom_says_what_there_is_and_what_needs_what(bundler: ModuleType, dist: Path) -> None:
    bundler.make_bundle(dist, dist.parent / "wheels")
    bundler.write_sums(dist)
    found = json.loads((dist / f"pgnode-{__version__}.cdx.json").read_text(encoding="utf-8"))
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["licenses"] == [{"license": {"name": "MIT"}}]
    (component,) = found["components"]
    assert (component["purl"], component["licenses"]) == (
        "pkg:pypi/small-thing@1.2",
        [{"license": {"name": "BSD License"}}],
    )
    assert found["dependencies"][0] == {
        "ref": f"pkg:pypi/pgnode@{__version__}",
        "dependsOn": ["pkg:pypi/small-thing@1.2"],
    }
    assert len((dist / "SHA256SUMS").read_text().splitlines()) == 3, "wheel, bundle, SBOM"


def test_the_package_has_all_files_that_are_no_code() -> None:
    """Each is one of a kind that the wheel takes: pyproject.toml names them."""
    others = {
        path.name for path in (ROOT / "pgnode").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert {name for name in others if not name.endswith((".proto", ".pyi"))} == {"py.typed", "pgnode.1"}


def test_the_installer_explains_itself() -> None:
    done = subprocess.run(["sh", INSTALLER, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("usage: install.sh")
    for arguments, said in (
        (["--colour"], "unknown option --colour"),
        (["--prefix", "here"], "--prefix needs an absolute path"),
        (["--python"], "--python needs a value"),
        (["--prefix", "/nowhere", "--python", "/bin/false"], "/bin/false is no Python 3.11 or newer"),
    ):
        failed = subprocess.run(["sh", INSTALLER, *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert failed.returncode == 1
        assert said in failed.stderr


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """An unpacked bundle beside an installation that is there already, whose programs say what they were asked."""
    bundle = tmp_path / "bundle"
    shutil.copytree(DEPLOY, bundle)
    (bundle / "wheels").mkdir()
    digest = hashlib.sha256((bundle / "install.sh").read_bytes()).hexdigest()
    (bundle / "SHA256SUMS").write_text(f"{digest}  install.sh\n")
    home = tmp_path / "root" / "opt" / "pgnode"
    (home / "bin").mkdir(parents=True)
    for name in ("python", "pgnode"):
        program = home / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*"\n')
        program.chmod(0o755)
    (home / "share" / "man" / "man1").mkdir(parents=True)
    shutil.copy(ROOT / "pgnode" / "pgnode.1", home / "share" / "man" / "man1")
    return tmp_path


def install(installation: Path) -> str:
    command = ["sh", str(installation / "bundle" / "install.sh"), "--prefix", str(installation / "root")]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_installer_puts_command_manual_and_completion_where_they_are_looked_for(installation: Path) -> None:
    local = installation / "root" / "usr" / "local"
    home = installation / "root" / "opt" / "pgnode"
    # Run again it changes nothing: an upgrade brings all of it anew.
    for _ in range(2):
        said = install(installation)
        assert " install --no-index --no-deps --force-reinstall " in said, "one of the same number may be another one"
        assert f"the command is {local}/bin/pgnode; man pgnode, and completion" in said
        assert (local / "bin" / "pgnode").readlink() == home / "bin" / "pgnode"
        assert (local / "share/man/man1/pgnode.1").read_bytes() == (ROOT / "pgnode" / "pgnode.1").read_bytes()
        root = installation / "root"
        places = (
            "usr/local/share/bash-completion/completions/pgnode",
            "usr/local/share/zsh/site-functions/_pgnode",
            "etc/fish/completions/pgnode.fish",
        )
        assert [(root / place).read_text() for place in places] == [
            "pgnode completion bash\n",
            "pgnode completion zsh\n",
            "pgnode completion fish\n",
        ]
    assert not (installation / "root" / "etc" / "pgnode.env").stat().st_mode & 0o007, "settings hold a key"


def test_the_installer_leaves_another_command_of_that_name_alone(installation: Path) -> None:
    other = installation / "root" / "usr" / "local" / "bin" / "pgnode"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    assert f"{other} is something else and stays as it is" in install(installation)
    assert (other.read_text(), [path.name for path in other.parent.parent.iterdir()]) == ("mine", ["bin"])


@pytest.mark.parametrize("script", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_have_no_known_slips(script: Path) -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    tool = str(beside) if beside.exists() else shutil.which("shellcheck")
    if tool is None:
        pytest.skip("shellcheck is not installed")
    looked = subprocess.run([tool, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert looked.returncode == 0, looked.stdout


def test_the_wheel_has_the_manual_where_man_looks(tmp_path: Path) -> None:
    # What the installer and the image copy: nothing else may be needed.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "pgnode", source / "pgnode", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True, timeout=200)
    with zipfile.ZipFile(tmp_path / f"pgnode-{__version__}-py3-none-any.whl") as wheel:
        names = wheel.namelist()
    assert f"pgnode-{__version__}.data/data/share/man/man1/pgnode.1" in names
    assert {"pgnode/py.typed", "pgnode/wire/service.proto", "pgnode/cli/completion.py"} <= set(names)
