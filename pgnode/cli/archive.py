"""The file of a backup: a compressed tar archive, a manifest with the hash of each other file first. Holds secrets."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from pgnode.errors import OperatorError
from pgnode.os_support.fault_points import fault_point
from pgnode.supervisor.host.restored_state import MEMBERS, STORE

#: The form of the archive; one with a higher number is not read.
FORMAT: Final = 1

MANIFEST: Final = "manifest.json"

#: What is read of a manifest at most.
MANIFEST_BYTES: Final = 1024 * 1024

#: Bytes that are copied at once.
PIECE_BYTES: Final = 1024 * 1024

#: Little is left of packed users when it is tried harder.
_LEVEL: Final = 6

#: All that a damaged archive makes its readers say.
_DAMAGED: Final = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself."""

    #: The version that made it, and of its store.
    pgnode: str
    schema: int
    #: When, Unix seconds, and where.
    made_at: float
    host: str
    users: int
    rejected: int
    counters: int
    #: Bytes of users' traffic that were counted and not reported.
    owed_bytes: int
    #: SHA-256 of the certificate that the node had, hexadecimal; "" for none.
    certificate: str
    #: The files by their names: bytes, and SHA-256, hexadecimal.
    members: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    format: int = FORMAT

    def encode(self) -> bytes:
        """Return it as JSON."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Read what :meth:`encode` made, also of a later version with the same form.

        Args:
            data: The document.

        Returns:
            What it says.

        Raises:
            OperatorError: It has another form.
            ValueError: It is damaged; also KeyError, TypeError and AttributeError.
        """
        found: dict[str, Any] = json.loads(data)
        if int(found["format"]) > FORMAT:
            raise OperatorError(
                f"this backup is of a newer pgnode ({found.get('pgnode', 'unknown')}): restore it with that version"
            )
        members = {str(name): (int(size), str(digest)) for name, (size, digest) in found["members"].items()}
        if STORE not in members or not members.keys() <= set(MEMBERS):
            raise ValueError("its manifest names other files")
        known = {name: value for name, value in found.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "members": members})


def describe(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and hash of each file of a backup.

    Args:
        folder: Has them by their names.

    Returns:
        Those that are there.

    Raises:
        OSError: One cannot be read.
    """
    found = {}
    for name in MEMBERS:
        path = folder / name
        if path.exists():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = (path.stat().st_size, digest)
    return found


def write_archive(manifest: Manifest, folder: Path, target: IO[bytes]) -> None:
    """Write a backup.

    Args:
        manifest: What it says of itself.
        folder: Has the files by their names.
        target: Where to; it is not closed.

    Raises:
        OSError: It cannot be written.
    """
    with (
        gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        document = manifest.encode()
        archive.addfile(_entry(manifest, MANIFEST, len(document)), io.BytesIO(document))
        for name, (size, _) in manifest.members.items():
            fault_point("backup.write")
            with (folder / name).open("rb") as file:
                archive.addfile(_entry(manifest, name, size), file)


def read_archive(source: IO[bytes], folder: Path, name: str) -> Manifest:
    """Read a backup, and check every byte of it.

    Args:
        source: Where from.
        folder: Gets the files, by their names.
        name: What it is called in errors.

    Returns:
        What it says of itself.

    Raises:
        OperatorError: It is damaged, something else, or of a newer version.
        OSError: A file cannot be written.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|gz") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST or first.size > MANIFEST_BYTES:
                raise ValueError("it does not begin with a manifest")
            manifest = Manifest.decode(_content(archive, first).read())
            left = dict(manifest.members)
            while (entry := archive.next()) is not None:
                size, digest = left.pop(entry.name)
                if not entry.isfile() or entry.size != size:
                    raise ValueError(f"{entry.name} has another size")
                path = folder / entry.name
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if _copy(_content(archive, entry), path) != digest:
                    raise ValueError(f"{entry.name} has another hash")
            if left:
                raise ValueError(f"{', '.join(left)} is missing")
    except _DAMAGED as error:
        raise OperatorError(
            f"{name} is no backup of a node, or is damaged ({error}): nothing was changed; take another one"
        ) from None
    return manifest


def _entry(manifest: Manifest, name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(manifest.made_at)
    return entry


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(entry)
    if content is None:
        raise ValueError(f"{entry.name} is no file")
    return content


def _copy(source: IO[bytes], path: Path) -> str:
    """Write a file; return its hash. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        path.chmod(0o600)
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
