"""Wheels and virtual environments, made without any index."""

from __future__ import annotations

import base64
import hashlib
import re
import sysconfig
import venv
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

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
    needs = [one for one in metadata.requires("pgnode") or () if not re.search(r"extra *==", one)]
    return make_wheel(folder, "pgnode", version, files, needs)


def make_environment(folder: Path, *, with_ours: bool = False) -> Path:
    """Make a virtual environment with pip; return its Python.

    Args:
        folder: The environment.
        with_ours: Let it find the packages of this one, too.
    """
    venv.create(folder)
    [packages] = folder.glob("lib/python3*/site-packages")
    ours = Path(sysconfig.get_path("purelib"))
    if with_ours:
        (packages / "ours.pth").write_text(f"{ours}\n")
    else:
        # Pip's own installation of itself takes half a minute on a busy machine.
        for found in (ours / "pip", *ours.glob("pip-*.dist-info")):
            (packages / found.name).symlink_to(found)
    return folder / "bin" / "python"


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
