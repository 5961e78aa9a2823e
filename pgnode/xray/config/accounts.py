"""Which account a user gets in an inbound, and how it is written for the core.

An :class:`Account` is small and comparable by value: two accounts that are equal need no call to the core. Its wire form
(for the core's API) and JSON form (for the core's config) are made when they are asked for.

E-mails are the names of users in the core, which compares them in lower case (xray-core ``proxy/vless/validator.go``) but
counts traffic under the name as it was given. So the name goes to the core as it came, and whoever keeps a table of users
keys it by :func:`email_key`; a list with two names of one key is refused there, not here.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final, NamedTuple

from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint
from pgnode.wire.varint import SHORT, SHORT_MAX
from pgnode.xray.config import peers
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.protocols import ACCOUNT_KINDS, SHADOWSOCKS_2022, WIREGUARD, Credential, Detail
from pgnode.xray.proto import typed_message_pb2, user_pb2, vmess_pb2

VISION_FLOW: Final = "xtls-rprx-vision"

#: User flows to what the core is told. "-udp443" is the client's form of the same flow and unknown to an inbound; the
#: core's API takes any text and then refuses every connection, so others are refused here.
_FLOWS: Final = {"": "", "none": "", VISION_FLOW: VISION_FLOW, f"{VISION_FLOW}-udp443": VISION_FLOW}

#: Shadowsocks methods to the core's name and ``xray.proxy.shadowsocks.CipherType``. "none" is missing: core 26.10
#: answers "Unsupported cipher" over its API, and refuses the whole config where a client has it.
_CIPHERS: Final = {
    "aes-128-gcm": ("aes-128-gcm", 5),
    "aead_aes_128_gcm": ("aes-128-gcm", 5),
    "aes-256-gcm": ("aes-256-gcm", 6),
    "aead_aes_256_gcm": ("aes-256-gcm", 6),
    "chacha20-poly1305": ("chacha20-poly1305", 7),
    "chacha20-ietf-poly1305": ("chacha20-poly1305", 7),
    "aead_chacha20_poly1305": ("chacha20-poly1305", 7),
    "xchacha20-poly1305": ("xchacha20-poly1305", 8),
    "xchacha20-ietf-poly1305": ("xchacha20-poly1305", 8),
    "aead_xchacha20_poly1305": ("xchacha20-poly1305", 8),
}
_CIPHER_NUMBERS: Final = dict(_CIPHERS.values())

#: What begins the TypedMessage of an account, by kind.
_TYPED_HEADS: Final = {name: varint.field(1, kind.type_name.encode()) for name, kind in ACCOUNT_KINDS.items()}
#: What stands before the credential and before the detail in a client's JSON, and whether the credential may hold anything
#: that JSON escapes, by kind.
_JSON_KEYS: Final = {
    name: (
        f',"{kind.credential_key}":',
        f',"{kind.detail_key}":',
        kind.credential not in (Credential.UUID, Credential.PUBLIC_KEY),
    )
    for name, kind in ACCOUNT_KINDS.items()
}

#: Kinds of accounts by the type names of their messages.
_KIND_NAMES: Final = {kind.type_name: name for name, kind in ACCOUNT_KINDS.items()}
#: What stands before the credential by which the core looks a user up, and what it drops of the text of an id, by kind; nothing
#: for kinds whose users it tries one after the other.
_LOOKED_UP: Final = {
    name: (f"{name} ", kind.ignored_id_text)
    for name, kind in ACCOUNT_KINDS.items()
    if kind.by_credential or kind.ignored_id_text is not None
}

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}").fullmatch
_OTHER_UUID = re.compile(
    r"(\{)?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(?(1)\})", re.I
).fullmatch

#: How much of a wrong value an error shows; it may be a secret put into the wrong field.
_SHOWN_CHARACTERS: Final = 40


class UnusableAccountError(Exception):
    """A user cannot have the account; ``str(error)`` is the cause, without secrets."""


class Account(NamedTuple):
    """One user's access to inbounds of one protocol; equal by value.

    A tuple, since there are as many of these as users times inbounds and all are compared at every full sync.

    ``secret``: the UUID (canonical), password, key (base64), auth or public key (hexadecimal). ``detail``: the flow (vless), the
    method (shadowsocks), or the pre-shared key and the networks (wireguard, see :mod:`pgnode.xray.config.peers`), else "".
    """

    protocol: str
    secret: str
    detail: str = ""

    def __repr__(self) -> str:
        detail = peers.without_key(self.detail) if self.protocol == WIREGUARD else self.detail
        return f"Account(protocol={self.protocol!r}, detail={detail!r})"

    @property
    def typed(self) -> bytes:
        """The account as a serialized ``xray.common.serial.TypedMessage``."""
        protocol, secret, detail = self
        key = secret.encode()
        size = len(key)
        # Not in smaller steps: this is done for every user in every inbound. All secrets are field 1 of their message; what
        # follows differs.
        value = b"\x0a%b%b%b" % (
            SHORT[size] if size < SHORT_MAX else varint.encode(size),
            key,
            (peers.fields(detail) if protocol == WIREGUARD else _detail_field(protocol, detail)) if detail else b"",
        )
        size = len(value)
        return b"%b\x12%b%b" % (
            _TYPED_HEADS[protocol],
            SHORT[size] if size < SHORT_MAX else varint.encode(size),
            value,
        )


#: A call of the class itself, with keywords to look for, takes twice as long.
_new: Final = tuple.__new__


@functools.lru_cache(maxsize=64)
def _detail_field(protocol: str, detail: str) -> bytes:
    """Encode a flow or a method as the field behind the credential."""
    if ACCOUNT_KINDS[protocol].detail is Detail.CIPHER:
        return b"\x10" + varint.encode(_CIPHER_NUMBERS[detail])
    return varint.field(2, detail.encode())


def further_credentials(account: Account) -> list[str]:
    """Return what else two users of an inbound cannot both have: the networks of WireGuard users.

    The core finds the user of a connection by the address that it comes from, in no order where several have it. Text as that of
    :func:`credential_of`.
    """
    protocol, _, detail = account
    return peers.network_credentials(detail) if protocol == WIREGUARD else []


def replaces(new: Account, old: Account) -> bool:
    """Whether adding ``new`` puts it in the place of ``old``, if both are of one user: no removal has to come first."""
    return new[0] == old[0] and new[1] == old[1] and ACCOUNT_KINDS[new[0]].replaced_in_place


def credential_of(account: Account) -> str:
    """Return by what the core finds the user of this account in an inbound; "" where it tries one after the other.

    Two users with one credential cannot both be in an inbound. It is text that says the kind of the account, too, so credentials
    of different kinds differ.
    """
    protocol, secret, _ = account
    how = _LOOKED_UP.get(protocol)
    if how is None:
        return ""
    kind, dropped = how
    return kind + secret if dropped is None else f"{kind}{secret[: dropped[0]]}{secret[dropped[1] :]}"


def listed_credentials(user: user_pb2.User) -> set[str]:
    """Return the credentials of a user as the core lists it, further ones included; nothing where the node knows none."""
    found = {_listed_credential(user)} - {""}
    if found and user.account.type == ACCOUNT_KINDS[WIREGUARD].type_name:
        found.update(peers.listed_credentials(user.account.value))
    return found


def _listed_credential(user: user_pb2.User) -> str:
    """Return the credential of a user as the core lists it; "" where it is none that the node knows."""
    name = _KIND_NAMES.get(user.account.type, "")
    value = user.account.value
    # All secrets are field 1 of their message.
    if not name or value[:1] != b"\x0a":
        return ""
    try:
        size, at = varint.decode(value, 1)
        secret = value[at : at + size].decode()
    except (varint.VarintError, UnicodeDecodeError):
        return ""
    if ACCOUNT_KINDS[name].credential is Credential.UUID:
        secret = canonical_id(secret) or secret
    return credential_of(Account(name, secret))


def email_key(email: str) -> str:
    """Return the name under which the core knows ``email``: in lower case, character by character as Go does it."""
    if email.isascii():
        # Mostly it is its own key: then both are one object, of as many users as there are.
        return email if email.islower() else email.lower()
    # str.lower() looks at neighbours (final sigma) and may return two characters for one.
    return "".join(char.lower()[0] for char in email)


def account_for(proxies: pb.Proxy, inbound: InboundSpec) -> Account | None:
    """Make the account that a user with ``proxies`` gets in ``inbound``; None when the user has none of that protocol.

    A proxy whose fields are all empty counts as none. Raises UnusableAccountError for one that cannot work.
    """
    maker = _MAKERS.get(inbound.protocol)
    return None if maker is None else maker(proxies, inbound)


def tags_of(raw: bytes) -> tuple[str, ...]:
    """Return the tags of a user's inbounds.

    Args:
        raw: A ``User`` message that was parsed or serialized before.

    Returns:
        The tags, in its order.
    """
    # They come last, and many users have the same ones: it is mostly known what these bytes say. What stands before them may be
    # left in, but nothing of them may be cut off.
    at = 2 + raw[1] if raw[:1] == b"\x0a" and raw[1] < 0x80 else 0
    if raw[at : at + 1] == b"\x12":
        size, more = raw[at + 1], raw[at + 2 : at + 3]
        if size < 0x80:
            at += 2 + size
        elif more < b"\x80":
            at += 3 + (size & 0x7F) + (more[0] << 7)
    tail = raw[at:]
    return _known_tags(tail) if len(tail) <= _TAGS_BYTES_MAX else _read_tags(tail)


def _read_tags(raw: bytes) -> tuple[str, ...]:
    return tuple(pb.User.FromString(raw).inbounds)


_known_tags = functools.lru_cache(maxsize=1024)(_read_tags)
#: Bytes of the tags of a user that are remembered, at most.
_TAGS_BYTES_MAX: Final = 512


def accounts_of(
    user: pb.User, inbounds_by_tag: Mapping[str, InboundSpec], tags: Iterable[str] | None = None
) -> dict[str, Account]:
    """Make the accounts of ``user`` by inbound tag, for every managed inbound the user is in.

    Tags without an inbound here, inbounds that are not managed, and protocols the user has no proxy of are left out. Raises
    UnusableAccountError when the e-mail is empty or any one account is bad: such a user is bad as a whole. ``tags``: those of the
    user, where they were read (:func:`tags_of`).
    """
    if not user.email:
        raise UnusableAccountError("email is empty")
    accounts: dict[str, Account] = {}
    proxies = user.proxies
    account, before = None, None
    for tag in user.inbounds if tags is None else tags:
        inbound = inbounds_by_tag.get(tag)
        if inbound is None or not inbound.managed:
            continue
        # Inbounds that are alike to a user share one account: reading the message is most of the work.
        if before is None or not inbound.accounts_as_in(before):
            account, before = account_for(proxies, inbound), inbound
        if account is not None:
            accounts[tag] = account
    return accounts


def user_message(email: str, account: Account) -> bytes:
    """Serialize a ``xray.common.protocol.User`` at level 0, as ``AddUserOperation`` and inbound configs hold it."""
    name, typed = email.encode(), account.typed
    size, typed_size = len(name), len(typed)
    return b"\x12%b%b\x1a%b%b" % (
        SHORT[size] if size < SHORT_MAX else varint.encode(size),
        name,
        SHORT[typed_size] if typed_size < SHORT_MAX else varint.encode(typed_size),
        typed,
    )


def is_user(there: user_pb2.User, account: Account) -> bool:
    """Whether a user as the core lists it has this account, and nothing else.

    The core lists accounts as they were given (26.10.10, measured), apart from VMess: there it adds the cipher it would choose
    as a client, which means nothing in an inbound.
    """
    if there.level:
        return False
    given = typed_message_pb2.TypedMessage.FromString(account.typed)
    if not ACCOUNT_KINDS[account.protocol].listed_as_given and there.account.type == given.type:
        return vmess_pb2.Account.FromString(there.account.value).id == account.secret
    return (there.account.type, there.account.value) == (given.type, given.value)


def client_json(email: str, account: Account) -> str:
    """Write the user as one JSON object for the ``clients`` of an inbound's settings."""
    return client_head(email) + client_tail(account)


def client_head(email: str) -> str:
    """Write what :func:`client_json` begins with, for any account of the user."""
    return f'{{"email":{_quoted(email)}'


def client_tail(account: Account) -> str:
    """Write what follows on :func:`client_head`."""
    protocol, credential, detail = account
    credential_key, detail_key, is_text = _JSON_KEYS[protocol]
    # Put together by hand: at a start this is done for every user in every inbound.
    shown = _quoted(credential) if is_text else f'"{credential}"'
    if detail:
        if protocol == WIREGUARD:
            return f"{credential_key}{shown}{peers.json_fields(detail)}}}"
        return f'{credential_key}{shown}{detail_key}"{detail}"}}'
    return f"{credential_key}{shown}}}"


def _vless(proxies: pb.Proxy, inbound: InboundSpec) -> Account | None:
    proxy = proxies.vless
    # Read once: each look into the message costs as much as the rest of the line.
    identity, wanted = proxy.id, proxy.flow
    if not identity and not wanted:
        return None
    flow = inbound.flow
    if not flow and inbound.flow_allowed:
        known = _FLOWS.get(wanted)
        if known is None:
            raise UnusableAccountError(f"vless flow {_shown(wanted)} is not supported")
        flow = known
    return _new(Account, ("vless", identity if _CANONICAL_UUID(identity) else _uuid("vless", identity), flow))


def _vmess(proxies: pb.Proxy, _inbound: InboundSpec) -> Account | None:
    identity = proxies.vmess.id
    return _new(Account, ("vmess", _uuid("vmess", identity), "")) if identity else None


def _trojan(proxies: pb.Proxy, _inbound: InboundSpec) -> Account | None:
    password = proxies.trojan.password
    return _new(Account, ("trojan", password, "")) if password else None


def _hysteria(proxies: pb.Proxy, _inbound: InboundSpec) -> Account | None:
    proxy = proxies.hysteria
    return Account("hysteria", proxy.auth) if proxy.auth else None


def _shadowsocks(proxies: pb.Proxy, inbound: InboundSpec) -> Account | None:
    proxy = proxies.shadowsocks
    password, method = proxy.password, proxy.method
    if not password and not method:
        return None
    if not password:
        raise UnusableAccountError("shadowsocks password is empty")
    if inbound.is_shadowsocks_2022:
        return Account(SHADOWSOCKS_2022, _key(password, inbound.key_bytes))
    cipher = _CIPHERS.get(method.lower())
    if cipher is None:
        raise UnusableAccountError(f"shadowsocks method {_shown(method)} is not supported")
    return _new(Account, ("shadowsocks", password, cipher[0]))


def _wireguard(proxies: pb.Proxy, inbound: InboundSpec) -> Account | None:
    proxy = proxies.wireguard
    if not proxy.peer_ips:
        # So are those sent who have left all their groups: the key stays.
        return None
    try:
        key = peers.user_key(proxy.public_key, inbound.public_key)
        return _new(Account, (WIREGUARD, key, peers.detail(inbound.pre_shared_key, proxy.peer_ips)))
    except ValueError as error:
        raise UnusableAccountError(f"wireguard {error}") from None


_MAKERS: Final = {
    WIREGUARD: _wireguard,
    "vless": _vless,
    "vmess": _vmess,
    "trojan": _trojan,
    "shadowsocks": _shadowsocks,
    "hysteria": _hysteria,
}


def canonical_id(text: str) -> str | None:
    """Write a UUID in its usual form; None for what is none.

    The core would also hash any other text of up to 30 bytes into a UUID; here that is a mistake.
    """
    if _CANONICAL_UUID(text):
        return text
    return str(uuid.UUID(text)) if _OTHER_UUID(text) else None


def _uuid(protocol: str, text: str) -> str:
    if _CANONICAL_UUID(text):
        return text
    identity = canonical_id(text)
    if identity is None:
        # Without the id: most are nearly one, and this gets into logs.
        raise UnusableAccountError(f"{protocol} id is not a UUID")
    return identity


def _key(password: str, key_bytes: int) -> str:
    key = b""
    with contextlib.suppress(binascii.Error, ValueError):
        key = base64.b64decode(password, validate=True)
    if len(key) != key_bytes:
        key = hashlib.sha256(password.encode()).digest()[:key_bytes]
    # Its last character may be written in several ways, and the core looks at the key.
    return base64.b64encode(key).decode()


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")
