"""Makes the node's own certificate: ``python -m pgnode.supervisor.host.own_certificate``, with the settings handed over.

It is a process of its own where the supervisor needs one, at the first start; the command ``pgnode cert`` makes it by itself.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pgnode.errors import OperatorError, SettingsError
from pgnode.settings.handover import load_handed_over
from pgnode.supervisor.host.identity import addresses, write_private

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: Days for which certificates of the node's own are valid; the panel pins them, so renewal is the operator's decision.
CERT_DAYS = 3650

#: The panel refuses longer certificates.
CERT_MAX_CHARACTERS = 2048


def make_certificate(settings: Settings, names: Sequence[str] = (), *, days: int = CERT_DAYS) -> None:
    """Make a certificate of the node's own, with a new key, in place of the one that there is.

    Args:
        settings: Where it goes, and which names it has besides those of this machine.
        names: Further names and addresses.
        days: For how long it is valid.

    Raises:
        SettingsError: It cannot be written.
        OperatorError: A panel would not take it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # Everybody who connects sees it, so it does not say what this is.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    hostname = socket.gethostname()
    alternatives: list[x509.GeneralName] = [x509.DNSName("localhost")]
    if hostname != "localhost" and hostname.isascii() and len(hostname) < 64:
        alternatives.append(x509.DNSName(hostname))
    # What somebody asked for, then what this machine has.
    asked = [_general_name(each) for each in (*settings.cert_names.split(","), *names) if each]
    found: list[x509.GeneralName] = [x509.IPAddress(address) for address in addresses(settings)]
    alternatives = list(dict.fromkeys((*alternatives, *asked, *found)))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        # Strict X.509 checks (Python 3.13 and later) want these of a certificate that is its own CA.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    if len(pem) >= CERT_MAX_CHARACTERS:
        raise OperatorError(
            f"the certificate would be {len(pem)} characters long, more than a panel takes: give fewer names, or set "
            "SSL_CERT_FILE and SSL_KEY_FILE"
        )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    owner = _owner_of_state(settings)
    before = settings.cert_key_file.read_bytes() if settings.cert_key_file.is_file() else None
    write_private(settings.cert_key_file, private, owner)
    try:
        write_private(settings.cert_file, pem, owner)
    except SettingsError:
        # The certificate that there is goes on with its key.
        if before is not None:
            write_private(settings.cert_key_file, before, owner)
        raise


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _owner_of_state(settings: Settings) -> tuple[int, int] | None:
    """Return whom new files belong to where root makes them for another user's node; None for this user."""
    if os.geteuid() != 0:
        return None
    found = settings.state_dir.stat()
    return found.st_uid, found.st_gid


def main() -> int:
    """Make the certificate of the settings that were handed over.

    Returns:
        The exit code: 0, or that of the error which was printed.
    """
    try:
        make_certificate(load_handed_over())
    except OperatorError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
