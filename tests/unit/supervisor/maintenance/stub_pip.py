"""A program in place of an environment's Python, which does what pip would do for an upgrade: at once, and as a test says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pgnode.supervisor.maintenance.installation import Installation

#: Called as PYTHON -P -m pip WORD …. ``check`` fails where the folder has a file of its complaints.
_SCRIPT = """#!/bin/sh
shift 3
echo "$PYTHONPATH|$*" >>"{folder}/calls"
case "$1 $2" in
"check "*) if [ -n "$PYTHONPATH" ] && [ -e "{folder}/complaints" ]; then cat "{folder}/complaints"; exit 1; fi ;;
esac
if [ -e "{folder}/fails" ] && grep -qx -- "$1" "{folder}/fails"; then echo "out of luck"; exit 2; fi
for word; do
    if [ "$last" = --report ]; then cp "{folder}/report.json" "$word"; exit 0; fi
    if [ "$word" = --upgrade ]; then
        rm -rf "{packages}/pgnode" "{packages}/pgnode-1.0.dist-info"
        cp -R "{folder}/new/." "{packages}"
        if [ -e "{folder}/dies" ]; then echo "half way"; exit 3; fi
    fi
    last=$word
done
exit 0
"""


class StubPip:
    """A node 1.0 in an environment, and what an index offers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "stub"
        self.prefix = folder / "venv"
        self.packages = self.prefix / "lib" / "site-packages"
        self.packages.mkdir(parents=True)
        self.folder.mkdir()
        self._package(self.packages, "1.0")
        self._package(self.folder / "new", "1.1")
        python = self.folder / "python"
        python.write_text(_SCRIPT.format(folder=self.folder, packages=self.packages))
        python.chmod(0o755)
        self.installation = Installation(str(python), self.prefix, self.packages, "1.0")

    @staticmethod
    def _package(packages: Path, version: str) -> None:
        code, record = packages / "pgnode" / f"of_{version}.py", packages / f"pgnode-{version}.dist-info"
        code.parent.mkdir(parents=True)
        record.mkdir()
        code.write_text(version)
        lines = [f"pgnode/{code.name},,", f"{record.name}/RECORD,,", f"{record.name}/gone,,", "../../../outside,,"]
        (record / "RECORD").write_text("\n".join(lines) + "\n")

    def offers(self, versions: Mapping[str, str]) -> None:
        """Say what an upgrade would install."""
        found = [{"metadata": {"name": name, "version": version}} for name, version in versions.items()]
        (self.folder / "report.json").write_text(json.dumps({"install": found}))

    def fails(self, *words: str) -> None:
        """Say which of pip's words fail from now on."""
        (self.folder / "fails").write_text("".join(f"{word}\n" for word in words))

    def hang(self) -> None:
        """Have every word take for ever."""
        Path(self.installation.python).write_text("#!/bin/sh\nexec sleep 600\n")

    @property
    def calls(self) -> list[str]:
        """What was called: PYTHONPATH, a bar, and pip's words."""
        try:
            return (self.folder / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []

    @property
    def content(self) -> dict[str, str]:
        """What is installed."""
        found = (path for path in self.packages.rglob("*") if path.is_file())
        return {str(path.relative_to(self.packages)): path.read_text() for path in found}
