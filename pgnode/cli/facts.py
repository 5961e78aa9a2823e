"""Finds out about a node from outside: what its supervisor says, and, without it, what files and processes say."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from pathlib import Path

import psutil
from cryptography import x509

from pgnode.cli.seen import Facts, SeenCertificate, SeenCore, SeenDisk, SeenStore, SeenWorker
from pgnode.cli.target import Target
from pgnode.errors import StoreUnusableError
from pgnode.os_support.children import children
from pgnode.os_support.files import read_regular
from pgnode.settings import Settings
from pgnode.settings.shown import api_addresses
from pgnode.store.reader import stored_at
from pgnode.store.summary import read_summary
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS, NobodyListensError, NotAnsweredError, SilentError, ask
from pgnode.supervisor.control.report import NodeReport
from pgnode.xray.process.record import boot_id, read_record, start_ticks
from pgnode.xray.process.run_folder import fallbacks

#: What stands in the command lines of Gunicorn's master and of a gRPC worker.
_GUNICORN = "/worker/gunicorn_conf.py"
_GRPC_WORKER = "pgnode.worker.grpc_worker"

#: Bytes of a certificate chain at most.
_PEM_BYTES = 4 * 1024 * 1024


def find_facts(target: Target, *, ask_seconds: float = ASK_SECONDS) -> Facts:
    """Find out all there is.

    Args:
        target: The node.
        ask_seconds: Seconds that its supervisor has to answer.

    Returns:
        The facts.
    """
    settings, pid = target.settings, target.pid or 0
    report, silence, hangs = _ask(settings, pid, ask_seconds)
    return Facts(
        at=time.time(),
        state_dir=str(settings.state_dir),
        why=target.why,
        pid=pid,
        report=report,
        silence=silence,
        hangs=hangs,
        up_seconds=_up_seconds(pid),
        core=seen_core(settings),
        workers=seen_workers(pid),
        store=seen_store(settings.store_path),
        disk=seen_disk(settings.state_dir),
        certificate=seen_certificate(
            Path(report.cert_file) if report is not None and report.cert_file else settings.cert_file
        ),
        api=report.addresses if report is not None else api_addresses(settings),
    )


def _ask(settings: Settings, pid: int, seconds: float) -> tuple[NodeReport | None, str, bool]:
    """Return what the supervisor says; why it says nothing; and whether it hangs."""
    if not pid:
        return None, "", False
    try:
        return NodeReport.decode(ask(settings.run_dir, messages.STATUS, seconds=seconds)), "", False
    except SilentError as error:
        stopped = is_stopped(pid)
        return None, "it was stopped by a signal (SIGSTOP): kill -CONT it" if stopped else str(error), True
    except NobodyListensError as error:
        return None, str(error), False
    except NotAnsweredError as error:
        return None, str(error), False


def is_stopped(pid: int) -> bool:
    """Return whether a process was stopped by a signal."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    return False


def _up_seconds(pid: int) -> float:
    # The last two: the system does not tell when it was booted, as in some containers.
    with contextlib.suppress(psutil.Error, RuntimeError, OSError):
        if pid:
            return max(0.0, time.time() - psutil.Process(pid).create_time())
    return 0.0


def seen_core(settings: Settings) -> SeenCore | None:
    """Find the core of a node by its record.

    Args:
        settings: Where the record is.

    Returns:
        The core; None where none runs.
    """
    for folder in (settings.run_dir, *fallbacks(settings.run_dir)):
        record = read_record(folder)
        try:
            if record is None or record.boot_id != boot_id() or start_ticks(record.pid) != record.start_ticks:
                continue
            if psutil.Process(record.pid).status() != psutil.STATUS_ZOMBIE:
                return SeenCore(record.pid, record.kind, _up_seconds(record.pid))
        except (OSError, psutil.Error):
            continue
    return None


def seen_workers(supervisor: int) -> list[SeenWorker]:
    """Find the API workers of a node among the processes below its supervisor.

    Args:
        supervisor: Its pid; 0 for none.

    Returns:
        REST workers, then gRPC workers; those of Gunicorn's master only, and not the master.
    """
    found: list[SeenWorker] = []
    for pid in children(supervisor) if supervisor else ():
        with contextlib.suppress(psutil.Error, RuntimeError):
            child = psutil.Process(pid)
            command = child.cmdline()
            if any(word.endswith(_GUNICORN) for word in command):
                found += [_worker("rest", psutil.Process(worker)) for worker in children(pid)]
            elif _GRPC_WORKER in command:
                found.append(_worker("grpc", child))
    return sorted(found, key=lambda worker: (worker.kind != "rest", -worker.up_seconds, worker.pid))


def _worker(kind: str, process: psutil.Process) -> SeenWorker:
    """Look at one worker. Raises psutil.Error."""
    with process.oneshot():
        times = process.cpu_times()
        files: int | None = None
        with contextlib.suppress(psutil.Error):
            files = process.num_fds()
        return SeenWorker(
            kind=kind,
            pid=process.pid,
            up_seconds=_up_seconds(process.pid),
            memory_bytes=process.memory_info().rss,
            cpu_seconds=times.user + times.system,
            open_files=files,
        )


def seen_store(path: Path) -> SeenStore:
    """Look at the file of the store.

    Args:
        path: The file ``state.db``.

    Returns:
        What is there.
    """
    size = 0
    for name in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(OSError):
            size += name.stat().st_size
    try:
        held, error = read_summary(path), ""
    except StoreUnusableError as failed:
        held, error = None, str(failed)
    return SeenStore(str(path), size, stored_at(path), held, error)


def seen_disk(folder: Path) -> SeenDisk | None:
    """Look at the disk of a folder.

    Args:
        folder: The folder.

    Returns:
        Its room; None where the folder is not there.
    """
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    files = disk.f_favail if disk.f_files else None
    return SeenDisk(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize, files)


def seen_certificate(path: Path) -> SeenCertificate:
    """Read the certificate of the API.

    Args:
        path: The file, PEM.

    Returns:
        Until when it is good, and for which names.
    """
    try:
        first = x509.load_pem_x509_certificates(read_regular(path, _PEM_BYTES))[0]
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        shown = [str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]
    except x509.ExtensionNotFound:
        shown = []
    except OSError as error:
        return SeenCertificate(str(path), error=error.strerror or str(error))
    except ValueError:
        return SeenCertificate(str(path), error="it holds no certificate that can be read")
    return SeenCertificate(
        str(path),
        first.not_valid_after_utc.replace(tzinfo=datetime.UTC).timestamp(),
        shown,
        self_signed=first.issuer == first.subject,
    )
