"""Wheels and virtual environments, made without any index."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import marshal
import re
import shutil
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import pgnode


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, bytes | str], requires: Sequence[str] = ()
) -> Path:
    """Write a wheel of these files, by their paths in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    members = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{path},{_digest(data)},{len(data)}\n" for path, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in members.items():
            archive.writestr(path, data)
    return wheel


def make_node_wheel(folder: Path, version: str, changes: Mapping[str, str] | None = None) -> Path:
    """Write a wheel of this very code that calls itself another version.

    It holds what is compiled, too: pip compiles nothing with PIP_NO_COMPILE, and no process of the node need.

    Args:
        folder: Where to.
        version: What it calls itself.
        changes: Text that is put behind files, by their paths in the package.
    """
    package = Path(pgnode.__file__).parent
    files = {
        f"pgnode/{path.relative_to(package)}": path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own = files["pgnode/__init__.py"].decode()
    files["pgnode/__init__.py"] = own.replace(f'"{pgnode.__version__}"', f'"{version}"').encode()
    for path, text in (changes or {}).items():
        files[f"pgnode/{path}"] += text.encode()
    files |= {_beside(path): _compiled(path, data) for path, data in files.items() if path.endswith(".py")}
    needs = [one for one in metadata.requires("pgnode") or () if not re.search(r"extra *==", one)]
    return make_wheel(folder, "pgnode", version, files, needs)


def make_environment(folder: Path, *, with_ours: bool = False) -> Path:
    """Make a virtual environment with pip; return its Python.

    Args:
        folder: The environment.
        with_ours: Give it what the node needs, too.
    """
    venv.create(folder)
    [packages] = folder.glob("lib/python3*/site-packages")
    # To install pip takes half a minute on a busy machine.
    for name in ("pip", *(_needed("pgnode") if with_ours else ())):
        for file in metadata.files(name) or ():
            link = packages / file.parts[0]
            if file.parts[0] != ".." and not link.exists():
                link.symlink_to(Path(sysconfig.get_path("purelib"), file.parts[0]))
    return folder / "bin" / "python"


def _needed(name: str, found: frozenset[str] = frozenset()) -> frozenset[str]:
    """What an installed package needs, and what that needs."""
    for line in metadata.requires(name) or ():
        one = Requirement(line)
        wanted = one.marker is None or one.marker.evaluate({"extra": "fast"})
        if wanted and one.name not in found and _is_installed(one.name):
            found = _needed(one.name, found | {one.name})
    return found


def _is_installed(name: str) -> bool:
    return any(metadata.distributions(name=name))


def install_wheel(wheel: Path, packages: Path) -> None:
    """Put a wheel's files where pip would, with a record as pip's own."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    name, version, *_ = wheel.name.split("-")
    info = packages / f"{name}-{version}.dist-info"
    (info / "INSTALLER").write_text("pip\n")
    with (info / "RECORD").open("a") as record:
        record.write(f"{info.name}/INSTALLER,,\n")


def uninstall(name: str, packages: Path) -> None:
    """Remove a package of one file or folder, as pip would."""
    for found in packages.glob(f"{name}*"):
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()


def _beside(path: str) -> str:
    """Where the compiled file of a module is."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"


@functools.cache
def _compiled(path: str, data: bytes) -> bytes:
    """A module, compiled; Python compares it with nothing (PEP 552)."""
    unchecked = (1).to_bytes(4, "little")
    code = marshal.dumps(compile(data, path, "exec", dont_inherit=True))
    return importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(data) + code


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
