"""HAProxy and nginx with the examples of deploy/, in front of a node's workers: on free ports, in a folder of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from pgnode.testing.ports import free_port
from tests.support.certificates import make_certificate
from tests.support.polling import eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
#: The ports of an example, by name.
PORTS = {"rest": 62050, "api": 62051, "grpc": 62052}
#: The hosts of an example: their letter and address.
HOSTS = {"a": "192.0.2.11", "b": "192.0.2.12"}

#: Where Debian has them, too.
PATH = f"{os.environ['PATH']}:/usr/sbin"

#: nginx's module for TCP, where it is a file of its own.
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
#: What nginx has folders for.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Front:
    """A proxy that runs. ``ports`` are its own, ``certificate`` what panels pin where TLS ends there."""

    def __init__(self, folder: Path, ports: Mapping[str, int], certificate: Path) -> None:
        self.folder = folder
        self.ports = ports
        self.certificate = certificate
        self.output: deque[str] = deque(maxlen=500)

    @property
    def output_text(self) -> str:
        return "\n".join(self.output)

    async def ask(self, command: str) -> str:
        """An answer of HAProxy's admin socket."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "admin.sock"))
        try:
            writer.write(command.encode() + b"\n")
            async with asyncio.timeout(10):
                return (await reader.read()).decode().strip()
        finally:
            writer.close()

    async def row(self, backend: str, host: str) -> dict[str, str]:
        """What HAProxy knows of a host ("a" or "b") in a backend."""
        names, *lines = (await self.ask("show stat")).removeprefix("# ").splitlines()
        rows = [dict(zip(names.split(","), line.split(","), strict=False)) for line in lines]
        return next(row for row in rows if (row["pxname"], row["svname"]) == (backend, f"host-{host}"))

    async def wait_state(self, backend: str, host: str, wanted: str) -> None:
        """Until HAProxy thinks so of a host."""

        async def is_so() -> bool:
            return (await self.row(backend, host))["status"].split()[0] == wanted

        await eventually(is_so, f"{backend}/host-{host} is {wanted}")


def filled_in(text: str, hosts: Sequence[str], ports: Mapping[str, int], front: Front, node_certificate: Path) -> str:
    """An example with real addresses, ports and files in place of its own; every host has the same ``ports``."""
    for address, real in zip(HOSTS.values(), hosts, strict=True):
        text = text.replace(address, real)
    for name, port in PORTS.items():
        text = re.sub(rf"(bind |listen ):?{port}\b", rf"\g<1>127.0.0.1:{front.ports[name]}", text)
        text = re.sub(rf"\b{port}\b", str(ports[name]), text)
    for path in ("/etc/haproxy/", "/etc/nginx/"):
        text = text.replace(f"{path}front.pem", str(front.certificate.with_name("front.pem")))
        text = text.replace(f"{path}pgnode.pem", str(node_certificate))
    # A machine may allow few files.
    text = re.sub(r"(maxconn|worker_connections) \d+", r"\1 500", text)
    # As Debian has it, every module that is installed would be loaded; and some of nginx's folders are root's.
    text = text.replace(
        "include /etc/nginx/modules-enabled/*.conf;", f"load_module {STREAM};" if STREAM.exists() else ""
    )
    text = text.replace(
        "http {", "http {\n" + "".join(f"{name}_temp_path {front.folder}/{name};\n" for name in TEMPORARY)
    )
    text = text.replace("abns@pgnode-", f"abns@{front.folder.name}-")
    return text.replace("/run/haproxy/", f"{front.folder}/").replace("/run/nginx-", f"{front.folder}/nginx-")


@contextlib.asynccontextmanager
async def running(
    example: str, hosts: Sequence[str], ports: Mapping[str, int], *, node_certificate: Path, key: str
) -> AsyncIterator[Front]:
    """The proxy of an example ("haproxy/tls.cfg"), until it takes connections and has them looked at; ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    process: asyncio.subprocess.Process | None = None
    reading: asyncio.Task[None] | None = None
    try:
        certificate, private = make_certificate(folder, ["localhost"], ["127.0.0.1"])
        (folder / "front.pem").write_bytes(certificate.read_bytes() + private.read_bytes())
        front = Front(folder, {name: free_port() for name in PORTS}, certificate)
        file = folder / Path(example).name
        file.write_text(
            filled_in((DEPLOY / example).read_text(encoding="utf-8"), hosts, ports, front, node_certificate)
        )
        if example.startswith("haproxy/"):
            command = ["haproxy", "-db", "-f", str(file)]
        else:
            command = ["nginx", "-c", str(file), "-e", "stderr"]
            command += ["-g", f"daemon off; pid {folder}/nginx.pid; user root;"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PGNODE_METRICS_KEY": key, "PATH": PATH},
            cwd=folder,
        )
        reading = asyncio.create_task(_read(process, front))

        async def takes_connections() -> bool:
            assert process is not None
            assert process.returncode is None, front.output_text
            _, writer = await asyncio.open_connection("127.0.0.1", front.ports["rest"])
            writer.close()
            # HAProxy has its socket last.
            return example.startswith("nginx/") or (folder / "admin.sock").exists()

        await eventually(takes_connections, "the proxy takes connections", errors=(OSError,))
        yield front
    finally:
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if reading is not None:
            await reading
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _read(process: asyncio.subprocess.Process, front: Front) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        front.output.append(line.decode("utf-8", "replace").rstrip())


def missing(example: str) -> str:
    """What this machine lacks for an example; "" where it lacks nothing."""
    name = example.split("/", maxsplit=1)[0]
    found = shutil.which(name, path=PATH)
    if found is None:
        return name
    if name == "nginx" and not STREAM.exists():
        built = subprocess.run([found, "-V"], capture_output=True, text=True, check=True, timeout=30).stderr
        return "" if re.search(r"--with-stream( |$)", built) else "nginx's stream module"
    return ""
