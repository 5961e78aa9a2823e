#!/usr/bin/env python3
"""Make the offline bundle: all that an installation needs in one archive, with hashes and a bill of materials (SBOM).

Usage: make_bundle.py DIST WHEELS. DIST holds the node's wheel and gets the archive. WHEELS holds the wheels of all dependencies.

The SBOM (CycloneDX 1.6, JSON) is written here: it is made from the wheels that are in the bundle. The usual tools look at an
environment, which has pip and setuptools as well and knows no hashes of wheels.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import uuid
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Not part of what runs.
BUILD_ONLY = frozenset({"setuptools"})
#: A name that is the same for the same bundle.
NAMESPACE = uuid.UUID("5f1d3a52-3b0e-4d2f-9c56-2c1c7a1b9d10")


@dataclass(frozen=True)
class Wheel:
    """A wheel, and what it says of itself."""

    path: Path
    name: str
    version: str
    licence: str
    summary: str
    #: Names of what it needs, without optional parts.
    needs: tuple[str, ...]
    sha256: str

    @property
    def purl(self) -> str:
        """The package's address, as SBOMs have it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def plain(name: str) -> str:
    """Return a package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_wheel(path: Path) -> Wheel:
    """Read a wheel's metadata."""
    with zipfile.ZipFile(path) as archive:
        inside = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        found: Message = Parser().parsestr(archive.read(inside).decode())
    needs = [line for line in found.get_all("Requires-Dist", []) if "extra ==" not in line]
    return Wheel(
        path=path,
        name=plain(found["Name"]),
        version=found["Version"],
        licence=_licence(found),
        summary=found.get("Summary", ""),
        needs=tuple(sorted({plain(re.match(r"[\w.-]+", line)[0]) for line in needs})),  # type: ignore[index]
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _licence(found: Message) -> str:
    """Name the licence: an SPDX expression where there is one, else what comes nearest."""
    short = (found.get("License") or "").strip()
    classified = [
        line.rsplit(" :: ", 1)[-1] for line in found.get_all("Classifier", []) if line.startswith("License ::")
    ]
    return found.get("License-Expression") or (short if short and "\n" not in short else "") or ", ".join(classified)


def requirements(wheels: list[Wheel]) -> str:
    """Name every wheel with its hash, for `pip install --require-hashes`."""
    return "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)


def bill_of_materials(wheels: list[Wheel], node: Wheel) -> dict[str, Any]:
    """Return the SBOM: what the node consists of, with versions, licences, hashes, and what needs what."""
    here = {wheel.name: wheel for wheel in wheels}
    digest = hashlib.sha256(requirements(wheels).encode()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}",
        "version": 1,
        "metadata": {"component": _component(node, "application")},
        "components": [_component(wheel, "library") for wheel in wheels if wheel is not node],
        "dependencies": [
            {"ref": wheel.purl, "dependsOn": [here[name].purl for name in wheel.needs if name in here]}
            for wheel in wheels
        ],
    }


def _component(wheel: Wheel, kind: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": wheel.purl,
        "name": wheel.name,
        "version": wheel.version,
        "description": wheel.summary,
        "purl": wheel.purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if wheel.licence:
        # As a name: what packages write here is not always an expression of SPDX.
        component["licenses"] = [{"license": {"name": wheel.licence}}]
    return component


def make_bundle(dist: Path, folder: Path) -> Path:
    """Write the archive, and the SBOM beside it.

    Args:
        dist: Holds the node's wheel.
        folder: Holds the wheels of its dependencies.

    Returns:
        The archive.
    """
    node = read_wheel(next(dist.glob("pgnode-*.whl")))
    others = [read_wheel(path) for path in folder.glob("*.whl")]
    wheels = sorted(
        [node, *(wheel for wheel in others if wheel.name not in {*BUILD_ONLY, node.name})], key=lambda w: w.name
    )
    sbom = json.dumps(bill_of_materials(wheels, node), indent=2, ensure_ascii=False).encode() + b"\n"
    files = {f"wheels/{wheel.path.name}": wheel.path.read_bytes() for wheel in wheels}
    files |= {"requirements.txt": requirements(wheels).encode(), "sbom.cdx.json": sbom}
    files |= {name: (HERE / name).read_bytes() for name in ("install.sh", "pgnode.env.example")}
    files |= {f"systemd/{path.name}": path.read_bytes() for path in (HERE / "systemd").iterdir()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    files["SHA256SUMS"] = sums.encode()
    machine = os.uname().machine
    top = f"pgnode-{node.version}-offline-cp{sys.version_info[0]}{sys.version_info[1]}-{machine}"
    archive = dist / f"{top}.tar.gz"
    _write_archive(archive, top, files)
    (dist / f"pgnode-{node.version}.cdx.json").write_bytes(sbom)
    return archive


def _write_archive(archive: Path, top: str, files: dict[str, bytes]) -> None:
    """Write files into an archive that depends on nothing but them."""
    when = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=when) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = len(data), when, 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(member, io.BytesIO(data))


def write_sums(dist: Path) -> None:
    """Write SHA256SUMS of all that is in the folder."""
    paths = sorted(path for path in dist.iterdir() if path.name not in {"SHA256SUMS", ".gitignore"})
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (dist / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    make_bundle(Path(sys.argv[1]), Path(sys.argv[2]))
    write_sums(Path(sys.argv[1]))
