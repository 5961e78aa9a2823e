"""Downloads from a real server on loopback: limits, proxies, and what is said when something is wrong."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.errors import DownloadFailedError, NotFoundError, UpdateFailedError
from pgnode.settings import Settings, load
from pgnode.supervisor.maintenance.downloads import Downloads
from tests.support.certificates import make_certificate
from tests.support.release_server import PROXIED_HOST, ReleaseServer

MIB = 1024 * 1024
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's settings and proxies; the servers' certificate is trusted."""
    for name in (*VARIABLES, *(name.upper() for name in Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.chdir(tmp_path)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ReleaseServer]:
    certificate, key = make_certificate(tmp_path, [PROXIED_HOST], ["127.0.0.1"])
    async with ReleaseServer(certificate, key, platform.machine()) as running:
        yield running


def downloads(seconds: float = 20) -> Downloads:
    return Downloads(load(state_dir="/tmp/pgn-downloads", download_max_mib=1, download_timeout_seconds=seconds))


def nothing(_there: int, _announced: int) -> None:
    pass


async def test_a_file_and_its_digest(server: ReleaseServer, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096  # exactly the limit
    server.files["/file"] = content
    server.redirects["/moved"] = "/file"
    seen: list[int] = []
    for url in (f"https://127.0.0.1:{server.https_port}/moved", f"http://127.0.0.1:{server.http_port}/file"):
        digest = await downloads().file(url, tmp_path / "got", "sha256", lambda there, _of: seen.append(there))
        assert digest == hashlib.sha256(content).hexdigest()
        assert (tmp_path / "got").read_bytes() == content
    assert seen[-1] == len(content)


async def test_too_large_whatever_is_announced(server: ReleaseServer, tmp_path: Path) -> None:
    server.files["/large"] = bytes(MIB + 1)
    for announced in (True, False):
        (server.unannounced.discard if announced else server.unannounced.add)("/large")
        with pytest.raises(UpdateFailedError, match=r"^too large.*DOWNLOAD_MAX_MIB"):
            await downloads().file(f"http://127.0.0.1:{server.http_port}/large", tmp_path / "got", "sha256", nothing)
    with pytest.raises(UpdateFailedError, match=r"^no digest"):
        await downloads().text(f"http://127.0.0.1:{server.http_port}/large")


async def test_too_slow(server: ReleaseServer, tmp_path: Path) -> None:
    server.files["/slow"] = bytes(1000)
    server.slow.add("/slow")
    with pytest.raises(DownloadFailedError, match=r"^too slow: not complete within 1 s.*DOWNLOAD_TIMEOUT_SECONDS"):
        await downloads(1).file(f"http://127.0.0.1:{server.http_port}/slow", tmp_path / "got", "sha256", nothing)


async def test_cut_short(server: ReleaseServer, tmp_path: Path) -> None:
    server.files["/cut"] = bytes(1000)
    server.cut.add("/cut")
    with pytest.raises(DownloadFailedError, match=r"^download failed"):
        await downloads().file(f"http://127.0.0.1:{server.http_port}/cut", tmp_path / "got", "sha256", nothing)


async def test_what_is_not_there(server: ReleaseServer) -> None:
    with pytest.raises(NotFoundError, match=r"^does not exist \(404\): .*/nothing"):
        await downloads().text(f"http://127.0.0.1:{server.http_port}/nothing")
    with pytest.raises(DownloadFailedError, match=r"^download failed"):
        await downloads().text("http://127.0.0.1:9/nobody")
    with pytest.raises(DownloadFailedError, match=r"^download failed"):
        await downloads().text("http://[/")


async def test_https_is_never_left(server: ReleaseServer) -> None:
    server.files["/file"] = b"content"
    server.redirects["/downgrade"] = f"http://127.0.0.1:{server.http_port}/file"
    with pytest.raises(DownloadFailedError, match="without https"):
        await downloads().text(f"https://127.0.0.1:{server.https_port}/downgrade")
    assert "/file" not in server.requests


async def test_an_unknown_certificate_is_refused(server: ReleaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadFailedError, match=r"(?i)certificate"):
        await downloads().text(f"https://127.0.0.1:{server.https_port}/file")
    assert not server.requests


async def test_the_nodes_own_certificate_is_no_list_of_authorities(
    server: ReleaseServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_KEY_FILE", str(tmp_path / "key.pem"))
    with pytest.raises(DownloadFailedError, match=r"(?i)certificate"):
        await downloads().text(f"https://127.0.0.1:{server.https_port}/file")


async def test_proxies_of_the_environment(server: ReleaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/file"] = b"content"
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.proxy_port}")
    assert await downloads().text(f"https://{PROXIED_HOST}/file") == "content"
    assert server.proxied == [f"{PROXIED_HOST}:443"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert await downloads().text(f"https://127.0.0.1:{server.https_port}/file") == "content"
    assert len(server.proxied) == 1
    for proxy in ("ftp://127.0.0.1", "socks5://127.0.0.1:9"):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(DownloadFailedError, match="proxy"):
            await downloads().text(f"https://{PROXIED_HOST}/file")


@pytest.mark.parametrize(
    ("redirects", "version"),
    [
        ({"/latest": "/tag/v26.11.1"}, "26.11.1"),
        ({"/latest": "https://elsewhere.example/x/releases/tag/26.11.1"}, "26.11.1"),
        ({"/latest": "/moved", "/moved": "/tag/v1.2.3/"}, "1.2.3"),
        ({"/latest": "/tag/v26.11.1-beta"}, None),
        ({"/latest": "/latest"}, None),
        ({}, None),
    ],
)
async def test_the_latest_version(server: ReleaseServer, redirects: dict[str, str], version: str | None) -> None:
    server.redirects = redirects
    url = f"http://127.0.0.1:{server.http_port}/latest"
    if version is not None:
        assert await downloads().latest_version(url) == version
    else:
        with pytest.raises(DownloadFailedError, match=r"^the latest release is not known"):
            await downloads().latest_version(url)
