"""What is wrong with a certificate and its key, in words that say what to do. Loaded when OpenSSL has refused them."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from pgnode.errors import SettingsError

if TYPE_CHECKING:
    from pgnode.settings import Settings


def explain(
    settings: Settings, named_cert: tuple[str, bytes], named_key: tuple[str, bytes], advice: str
) -> datetime.datetime:
    """Find out why they cannot be served.

    Args:
        settings: Where they are.
        named_cert: What the certificate is called, and what is in its file.
        named_key: The same of the key.
        advice: What else can be done than mending them.

    Returns:
        When the certificate ends, where nothing is wrong after all.

    Raises:
        SettingsError: Something is; the text names the file, and says what to do.
    """
    (cert_name, cert), (key_name, key) = named_cert, named_key
    certificate = _certificate(cert_name, cert, advice)
    private = _private_key(key_name, key, advice)
    if certificate.public_key() != private.public_key():
        raise SettingsError(
            f"{key_name} is the key of another certificate than {cert_name}; give the key that the certificate was made with"
            f"{advice}"
        )
    try:
        # What OpenSSL has to say at last: keys and signatures that it takes for too weak, a broken chain.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.cert_file, settings.cert_key_file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or str(error)
        weak = " (RSA keys need 2,048 bits)" if "TOO_SMALL" in reason else ""
        raise SettingsError(f"{cert_name} is refused by OpenSSL: {reason}{weak}; make another one{advice}") from None
    return certificate.not_valid_after_utc


def _certificate(name: str, data: bytes, advice: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(data)[0]
    except ValueError:
        pass
    with contextlib.suppress(ValueError):
        x509.load_der_x509_certificate(data)
        raise SettingsError(
            f"{name} is in the DER format; convert it: openssl x509 -inform der -in FILE -out NEW{advice}"
        )
    raise SettingsError(
        f"{name} holds no certificate that can be read; give a PEM file (-----BEGIN CERTIFICATE-----){advice}"
    )


def _private_key(name: str, data: bytes, advice: str) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(data, None)
    except TypeError:
        raise SettingsError(
            f"{name} is encrypted; the node cannot ask for its password: openssl pkey -in FILE -out NEW{advice}"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        pass
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        serialization.load_der_private_key(data, None)
        raise SettingsError(
            f"{name} is in the DER format; convert it: openssl pkey -inform der -in FILE -out NEW{advice}"
        )
    raise SettingsError(
        f"{name} holds no private key that can be read; give a PEM file (-----BEGIN PRIVATE KEY-----){advice}"
    )
