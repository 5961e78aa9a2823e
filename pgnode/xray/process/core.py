"""The core as a process: the embedded one (PyPI ``Xray-core``) or an executable, behind one small interface.

A core is started in a runner process that outlives a supervisor that crashed. Its folder (``run_dir``, private) holds:

* ``core.sock`` the core's API (the config says so),
* ``core.log.fifo`` its output; the runner holds it open for both directions, so nobody has to read,
* ``core.json`` the record: pid, process start time, boot id, config hash. ``adopt`` takes over a core whose record is
  true, and clears the folder otherwise. The record is written by who spawns the core; a core whose spawner died before
  that is known by its output, which goes to this folder's FIFO, and is ended.

Exit codes of the core (Xray 26.10.10): 23 config refused, 255 start failed, 0 after SIGTERM.

How the embedded core's runner is started: :mod:`pgnode.xray.process.runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import select
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from pgnode.errors import StartFailedError
from pgnode.os_support.files import write_atomically
from pgnode.xray.process import embedded_main as embedded
from pgnode.xray.process.diagnose import unbindable
from pgnode.xray.process.runner import ASSETS_VARIABLE, Child, Runner

SOCKET_NAME: Final = "core.sock"
FIFO_NAME: Final = "core.log.fifo"
RECORD_NAME: Final = "core.json"
_CONFIG_NAME: Final = "core.config.json"
#: The core locks its socket by a file beside it, and leaves that behind.
_LEFTOVERS: Final = (RECORD_NAME, SOCKET_NAME, f"{SOCKET_NAME}.lock", FIFO_NAME, _CONFIG_NAME)

#: The core refuses the config; starting it again changes nothing.
EXIT_CONFIG_REFUSED: Final = 23
#: The config is fine, but the core could not start: for a config that cannot be bound this is the good answer.
EXIT_START_FAILED: Final = 255

#: How long a process has between SIGKILL and its end. The kernel may need a moment to free its memory.
_KILL_SECONDS: Final = 5.0

_STARTED = re.compile(r"\bXray (\d+\.\d+\.\d+)\b.* started")
_VERSION = re.compile(r"\bXray (\d+\.\d+\.\d+)")
#: A config that listens nowhere; the core prints its version when it has started.
_SCRATCH_CONFIG: Final = '{"log":{"loglevel":"warning"},"outbounds":[{"protocol":"freedom"}]}'


@dataclass(frozen=True, slots=True)
class CoreRecord:
    """What ``core.json`` says about a running core."""

    pid: int
    #: Process start time as the kernel counts it: clock ticks since boot.
    start_ticks: int
    boot_id: str
    config_hash: str
    kind: str
    #: Which core this is, as it names itself; "" in records of earlier versions.
    core: str = ""


class RunningCore:
    """One core process. Belongs to the event loop of its first ``wait`` or ``terminate``; ``close`` it after its end.

    ``log_fd`` is a non-blocking descriptor for reading the core's output; it reports its end once the core has ended.
    """

    def __init__(self, record: CoreRecord, run_dir: Path, pid_fd: int, log_fd: int, child: Child | None) -> None:
        self.record = record
        self.run_dir = run_dir
        self.log_fd = log_fd
        self._pid_fd = pid_fd
        self._child = child
        self._ended: asyncio.Future[int | None] | None = None

    def __repr__(self) -> str:
        origin = "adopted" if self._child is None else "own"
        return f"<RunningCore {self.record.kind} pid={self.pid} {origin} {'running' if self.is_running() else 'ended'}>"

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def config_hash(self) -> str:
        return self.record.config_hash

    @property
    def adopted(self) -> bool:
        """Whether an earlier supervisor started it; its exit code cannot be known then."""
        return self._child is None

    @property
    def started_at(self) -> float:
        """Start of the process in Unix seconds."""
        return _boot_time() + self.record.start_ticks / os.sysconf("SC_CLK_TCK")

    @property
    def socket_path(self) -> Path:
        return self.run_dir / SOCKET_NAME

    @property
    def log_path(self) -> Path:
        return self.run_dir / FIFO_NAME

    async def set_config_hash(self, config_hash: str) -> None:
        """Its config was changed while it runs: the record says so from now on."""
        self.record = replace(self.record, config_hash=config_hash)
        await asyncio.to_thread(_write_record, self.run_dir, self.record)

    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._pid_fd >= 0 and not _readable(self._pid_fd)

    async def wait(self) -> int | None:
        """The exit code when the process has ended: negative for a signal, None when it is not our child."""
        if self._ended is None:
            if self._pid_fd < 0:
                raise ValueError(f"{self!r} was closed")
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_reader(self._pid_fd, self._on_end, loop)
        return await asyncio.shield(self._ended)

    def _on_end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pid_fd)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(self._child.exit_code() if self._child is not None else None)

    async def terminate(self, grace_seconds: float) -> int | None:
        """SIGTERM, after ``grace_seconds`` SIGKILL; then nothing of the core is left in its folder. The exit code."""
        ended = asyncio.ensure_future(self.wait())
        try:
            self.send_signal(signal.SIGTERM)
            done, _ = await asyncio.wait({ended}, timeout=grace_seconds)
            if not done:
                self.send_signal(signal.SIGKILL)
                done, _ = await asyncio.wait({ended}, timeout=_KILL_SECONDS)
            if not done:
                raise TimeoutError(f"core process {self.pid} did not end {_KILL_SECONDS:g} s after SIGKILL")
            code = ended.result()
        finally:
            ended.cancel()
        _clear(self.run_dir, self.record)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, never to another one that got its pid."""
        if self._pid_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pid_fd, number)

    def close(self) -> None:
        """Give the descriptors back. A core that still runs goes on running."""
        if self._pid_fd >= 0:
            if self._ended is not None and not self._ended.done():
                self._ended.get_loop().remove_reader(self._pid_fd)
                self._ended.cancel()
            os.close(self._pid_fd)
            self._pid_fd = -1
        if self.log_fd >= 0:
            os.close(self.log_fd)
            self.log_fd = -1


class Core(ABC):
    """A kind of core. Stateless but for the version, which is asked for once."""

    kind: str

    def __init__(self, assets_dir: Path | None = None) -> None:
        #: Folder of geo files, as XRAY_LOCATION_ASSET; None: the core looks where it is used to.
        self.assets_dir = assets_dir
        self._version: str | None = None

    @abstractmethod
    def with_assets(self, assets_dir: Path) -> Core:
        """The same core with another folder of geo files."""

    async def version(self, deadline_seconds: float) -> str:
        """The core's own version, "26.10.10". StartFailedError when the core cannot be run."""
        if self._version is None:
            self._version = await self._ask_version(deadline_seconds)
        return self._version

    async def check(self, config_json: str, deadline_seconds: float) -> None:
        """Whether the core accepts the config; nothing is bound. StartFailedError tells why not.

        The embedded core gives no reasons; ``pgnode.xray.process.diagnose`` finds the part that is refused.
        """
        code, output = await self.check_exit_code(config_json, deadline_seconds)
        if code != EXIT_CONFIG_REFUSED and code in self._accepted:
            return
        reason = _reason(output) if code == EXIT_CONFIG_REFUSED else _last_lines(output)
        if code == EXIT_CONFIG_REFUSED:
            raise StartFailedError(reason or "the core refuses the config and gives no reason")
        raise StartFailedError(f"the config check ended with exit code {code}: {reason or 'no output'}")

    #: Exit codes of a check that mean "accepted".
    _accepted: frozenset[int]

    @abstractmethod
    async def check_exit_code(self, config_json: str, deadline_seconds: float) -> tuple[int, str]:
        """Exit code and output of a process that tries the config: 23 refused; see ``check``."""

    @abstractmethod
    def short_lived(self) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a core that reads its config from standard input and prints to its output."""

    @abstractmethod
    async def _ask_version(self, deadline_seconds: float) -> str: ...

    @abstractmethod
    def _launch(self, config: Path, fifo: Path, assets_dir: Path | None, runner: Runner | None) -> tuple[int, Child]:
        """Start the runner; it removes nothing but may take ``config`` away once read."""

    def warm_up(self, assets_dir: Path | None = None) -> Runner | None:
        """A process that is ready sooner to run the core with a config that is yet to come, for :meth:`spawn`.

        None where there is nothing to gain. Whoever asks for it gives it to ``spawn`` or discards it.
        """
        return None

    async def spawn(
        self,
        config_json: str,
        run_dir: Path,
        assets_dir: Path | None = None,
        *,
        config_hash: str | None = None,
        runner: Runner | None = None,
    ) -> RunningCore:
        """Start a core with this config; its output goes to ``run_dir``'s FIFO.

        The folder must hold no running core (``adopt`` sees to that). Returns as soon as the process is there: whether
        it comes up is seen by its API, or by ``wait``. ``config_hash`` is kept in the record for whoever adopts the
        core; by default the SHA-256 of ``config_json``. ``runner`` is one that :meth:`warm_up` made, with the same folder.
        """
        digest = config_hash if config_hash is not None else hashlib.sha256(config_json.encode()).hexdigest()
        fifo = run_dir / FIFO_NAME
        config = run_dir / _CONFIG_NAME
        log_fd = await asyncio.to_thread(_prepare, run_dir, fifo, config, config_json)
        try:
            pid, child = self._launch(config, fifo, assets_dir or self.assets_dir, runner)
            # Our own child: until we reap it, the pid is its.
            pid_fd = os.pidfd_open(pid)
        except BaseException:
            os.close(log_fd)
            _clear(run_dir, None)
            raise
        record = CoreRecord(pid, _start_ticks(pid), _boot_id(), digest, self.kind, str(self))
        _write_record(run_dir, record)
        return RunningCore(record, run_dir, pid_fd, log_fd, child)


class EmbeddedCore(Core):
    """The core as a library in a Python process of its own."""

    kind = "embedded"
    _accepted = frozenset({EXIT_START_FAILED})

    def __str__(self) -> str:
        return f"embedded (Xray-core {importlib.metadata.version('Xray-core')})"

    def with_assets(self, assets_dir: Path) -> EmbeddedCore:
        return EmbeddedCore(assets_dir)

    async def check_exit_code(self, config_json: str, deadline_seconds: float) -> tuple[int, str]:
        """Run the config with addresses that cannot be bound: 255 accepted, 23 refused; about 70 ms."""
        try:
            document = json.loads(config_json)
        except ValueError as error:
            raise StartFailedError(f"the config is no JSON: {error}") from None
        if not isinstance(document, dict):
            raise StartFailedError("the config is no JSON object")
        harmless = unbindable(document)
        # The core must not open the files that a config's log part may name.
        harmless["log"] = {"loglevel": "warning", "access": "none"}
        code, output = await _run_to_end(
            self._command(), json.dumps(harmless), deadline_seconds, _environment(self.assets_dir), stop=_STARTED
        )
        # On a machine where any address may be bound (ip_nonlocal_bind) the core comes up, which answers as well.
        return (EXIT_START_FAILED, output) if _STARTED.search(output) else (code, output)

    def short_lived(self) -> tuple[list[str], dict[str, str]]:
        return self._command(), _environment(self.assets_dir)

    async def _ask_version(self, deadline_seconds: float) -> str:
        environment = _environment(None)
        _, output = await _run_to_end(self._command(), _SCRATCH_CONFIG, deadline_seconds, environment, stop=_STARTED)
        found = _STARTED.search(output)
        if found is None:
            raise StartFailedError(f"the embedded core does not start: {_last_lines(output) or 'no output'}")
        return found[1]

    @staticmethod
    def _command() -> list[str]:
        return [sys.executable, "-I", str(Path(embedded.__file__).resolve())]

    def warm_up(self, assets_dir: Path | None = None) -> Runner:
        return Runner(assets_dir or self.assets_dir)

    def _launch(self, config: Path, fifo: Path, assets_dir: Path | None, runner: Runner | None) -> tuple[int, Child]:
        runner = runner or self.warm_up(assets_dir)
        try:
            runner.go(config, fifo)
        except OSError as error:
            raise StartFailedError(f"the core's process ended before it had its config: {error.strerror}") from None
        return runner.pid, runner


class ExecutableCore(Core):
    """An Xray executable, used by three commands only: ``version``, ``run -c stdin:`` and ``run -test -c stdin:``."""

    kind = "executable"
    _accepted = frozenset({0})

    def __init__(self, path: Path | str, assets_dir: Path | None = None) -> None:
        super().__init__(assets_dir)
        self.path = Path(path)

    def __str__(self) -> str:
        return f"executable {self.path}"

    def with_assets(self, assets_dir: Path) -> ExecutableCore:
        return ExecutableCore(self.path, assets_dir)

    async def check_exit_code(self, config_json: str, deadline_seconds: float) -> tuple[int, str]:
        """``run -test``: 0 accepted, 23 refused, with the core's reason in the output."""
        command = [str(self.path), "run", "-test", "-c", "stdin:"]
        return await _run_to_end(command, config_json, deadline_seconds, _environment(self.assets_dir))

    def short_lived(self) -> tuple[list[str], dict[str, str]]:
        return [str(self.path), "run", "-c", "stdin:"], _environment(self.assets_dir)

    async def _ask_version(self, deadline_seconds: float) -> str:
        code, output = await _run_to_end([str(self.path), "version"], "", deadline_seconds, _environment(None))
        found = _VERSION.search(output)
        if code != 0 or found is None:
            raise StartFailedError(f"{self.path} is no Xray: 'version' ended with {code}: {_last_lines(output)}")
        return found[1]

    def _launch(self, config: Path, fifo: Path, assets_dir: Path | None, _runner: Runner | None) -> tuple[int, Child]:
        log = embedded.open_log(fifo)
        try:
            with config.open("rb") as stdin:
                process = subprocess.Popen(
                    [str(self.path), "run", "-c", "stdin:"],
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=_environment(assets_dir),
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:
            raise StartFailedError(f"{self.path} cannot be run: {error.strerror}") from None
        finally:
            os.close(log)
            config.unlink(missing_ok=True)
        return process.pid, _PopenChild(process)


class _PopenChild:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def exit_code(self) -> int | None:
        return self._process.poll()


async def adopt(run_dir: Path) -> RunningCore | None:
    """The core that an earlier supervisor left running in this folder, if its record is true.

    Otherwise None, and the folder is clear: core processes without a true record were ended, and record, socket and FIFO
    are gone.
    """
    record = await asyncio.to_thread(_read_record, run_dir)
    running = await asyncio.to_thread(_take_over, record, run_dir) if record is not None else None
    if running is not None:
        return running
    await _end_strays(run_dir)
    await asyncio.to_thread(_clear, run_dir, None)
    return None


def _take_over(record: CoreRecord, run_dir: Path) -> RunningCore | None:
    try:
        pid_fd = os.pidfd_open(record.pid)
    except (OSError, OverflowError, ValueError):
        return None
    try:
        # With the descriptor held the pid cannot be another's between these looks.
        genuine = (
            record.boot_id == _boot_id()
            and record.start_ticks == _start_ticks(record.pid)
            and _writes_to(record.pid, run_dir / FIFO_NAME)
            and not _readable(pid_fd)
        )
        if genuine:
            log_fd = os.open(run_dir / FIFO_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return RunningCore(record, run_dir, pid_fd, log_fd, None)
    except OSError:
        pass
    os.close(pid_fd)
    return None


async def _end_strays(run_dir: Path) -> None:
    """End cores whose output goes to this folder's FIFO, and that no true record names."""
    for pid, pid_fd in await asyncio.to_thread(_strays, run_dir):
        stray = RunningCore(CoreRecord(pid, 0, "", "", "stray"), run_dir, pid_fd, -1, None)
        try:
            await stray.terminate(1.0)
        finally:
            stray.close()


def _strays(run_dir: Path) -> list[tuple[int, int]]:
    fifo = run_dir / FIFO_NAME
    found: list[tuple[int, int]] = []
    if not fifo.exists():
        return found
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid() or not _writes_to(int(entry), fifo):
            continue
        with contextlib.suppress(OSError):
            pid_fd = os.pidfd_open(int(entry))
            if _writes_to(int(entry), fifo):
                found.append((int(entry), pid_fd))
            else:
                os.close(pid_fd)
    return found


def _writes_to(pid: int, fifo: Path) -> bool:
    """Whether the process's standard output is this FIFO: the mark of a runner, as nobody else has it there."""
    try:
        return Path(f"/proc/{pid}/fd/1").samefile(fifo)
    except OSError:
        return False


def _prepare(run_dir: Path, fifo: Path, config: Path, config_json: str) -> int:
    """The folder with a fresh FIFO and the config in it; the FIFO's reading end."""
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _LEFTOVERS:
        (run_dir / name).unlink(missing_ok=True)
    descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(config_json)
    os.mkfifo(fifo, 0o600)
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _clear(run_dir: Path, record: CoreRecord | None) -> None:
    """Remove what a core leaves in its folder; with ``record``, only if the folder still is that core's."""
    if record is not None and record.kind != "stray" and _read_record(run_dir) not in (record, None):
        return
    for name in _LEFTOVERS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (run_dir / name).unlink()


def _write_record(run_dir: Path, record: CoreRecord) -> None:
    # A core ends with the machine, so its record need not outlive a crash of it.
    write_atomically(run_dir / RECORD_NAME, json.dumps(asdict(record)), durable=False)


def _read_record(run_dir: Path) -> CoreRecord | None:
    """The record, if there is one and it has the right shape."""
    try:
        content = json.loads((run_dir / RECORD_NAME).read_text(encoding="utf-8"))
        record = CoreRecord(**content)
    except (OSError, ValueError, TypeError):
        return None
    numbers = isinstance(record.pid, int) and isinstance(record.start_ticks, int) and record.pid > 1
    texts = all(isinstance(text, str) for text in (record.boot_id, record.config_hash, record.kind, record.core))
    return record if numbers and texts else None


def _start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot: field 22 of /proc/pid/stat (proc(5)); 0 when it has gone."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The command name, in parentheses, may hold spaces and parentheses itself.
    return int(content.rpartition(b")")[2].split()[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _boot_time() -> float:
    """Unix second of the last boot."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat names no boot time")


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _environment(assets_dir: Path | None) -> dict[str, str]:
    environment = dict(os.environ)
    if assets_dir is not None:
        environment[ASSETS_VARIABLE] = str(assets_dir)
    return environment


async def _run_to_end(
    command: list[str],
    stdin: str,
    deadline_seconds: float,
    environment: dict[str, str],
    stop: re.Pattern[str] | None = None,
) -> tuple[int, str]:
    """Exit code and output (both streams) of a short-lived process; killed at the deadline, or once ``stop`` matches."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise StartFailedError(f"{command[0]} cannot be run: {error.strerror}") from None
    output = bytearray()

    async def feed(writer: asyncio.StreamWriter) -> None:
        # A process that ended at once: uvloop's pipe is closed by then, and says so by a RuntimeError.
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.write(stdin.encode())
            await writer.drain()
        writer.close()

    async def collect(reader: asyncio.StreamReader) -> None:
        while block := await reader.read(65536):
            output.extend(block)
            if stop is not None and stop.search(output.decode(errors="replace")):
                return

    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a subprocess without pipes")
    try:
        async with asyncio.timeout(deadline_seconds):
            await asyncio.gather(feed(process.stdin), collect(process.stdout))
            if stop is None or process.stdout.at_eof():
                await process.wait()
    except TimeoutError:
        raise StartFailedError(f"the core did not answer within {deadline_seconds:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


_FAILED = re.compile(r"Failed to start: |Configuration is invalid|failed to load config files: ")


def _reason(output: str) -> str:
    """The core's own reason: the innermost causes of its "Failed to start" line; "" when it gave none."""
    line = next((line for line in reversed(output.splitlines()) if _FAILED.search(line)), "")
    links = [link for link in line.split(" > ") if not _FAILED.search(link)]
    return " > ".join(links) if links else line


def _last_lines(output: str) -> str:
    return " | ".join(output.splitlines()[-3:])
