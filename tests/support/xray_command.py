"""A command with the interface of an Xray executable around the embedded library, for machines without an executable.

``version``, ``run -c stdin:`` and ``run -test -c stdin:``; exit codes and reasons in the shape the real one gives them.
``install`` writes it as an executable script, ``source`` is that script's text. For tests of core updates it may say any
version, and have a fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pgnode.xray.process import embedded_main
from pgnode.xray.process.unbindable import unbindable

_STARTED = "started"


#: "refuses": no config passes its test. "dies": it ends at its start.
Fault = Literal["none", "refuses", "dies"]


def source(version: str | None = None, fault: Fault = "none") -> str:
    """The script; ``version`` is what it says, by default the library's own."""
    root = Path(__file__).resolve().parents[2]
    return (
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        f"from tests.support.xray_command import main\nsys.exit(main(sys.argv[1:], {version!r}, {fault!r}))\n"
    )


def install(folder: Path, version: str | None = None) -> Path:
    """An executable ``xray`` in ``folder``."""
    path = folder / "xray"
    path.write_text(source(version), encoding="utf-8")
    path.chmod(0o700)
    return path


def _embedded(config: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(embedded_main.__file__)]
    done = subprocess.run(command, input=config, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def _version() -> str:
    command = [sys.executable, "-I", str(embedded_main.__file__)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"log":{"loglevel":"warning"},"outbounds":[{"protocol":"freedom"}]}')
        process.stdin.close()
        line = next(line for line in process.stdout if _STARTED in line)
        process.kill()
    return line.split("Xray ")[1].split()[0]


def main(arguments: list[str], version: str | None = None, fault: Fault = "none") -> int:
    """The command line."""
    if arguments == ["version"]:
        print(f"Xray {version or _version()} (Xray, Penetrates Everything.) embedded (library)")
        return 0
    if arguments == ["run", "-c", "stdin:"]:
        if fault == "dies":
            print("Failed to start: this core has a fault")
            return 255
        import xray

        xray.startFromJSON(sys.stdin.read())
        return 0
    if arguments == ["run", "-test", "-c", "stdin:"] and fault == "refuses":
        print("Failed to start: main: failed to load config files: [stdin:] > infra/conf: this core likes no config")
        return 23
    if arguments == ["run", "-test", "-c", "stdin:"]:
        try:
            code, _ = _embedded(json.dumps(unbindable(json.load(sys.stdin))))
        except ValueError as error:
            code, reason = 23, f"infra/conf/serial: failed to decode config > {error}"
        else:
            reason = "infra/conf: the library gives no reason"
        if code == 23:
            print(f"Failed to start: main: failed to load config files: [stdin:] > {reason}")
            return 23
        print("Configuration OK.")
        return 0
    print(f"unknown arguments {arguments}")
    return 2
