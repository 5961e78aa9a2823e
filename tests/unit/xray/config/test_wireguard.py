"""What a panel sends for a WireGuard core, as a config of the core; and every value that cannot be, by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import StartFailedError
from pgnode.testing.wireguard import private_key
from pgnode.xray.config.document import parse_config
from pgnode.xray.config.peers import key_hex
from pgnode.xray.config.wireguard import DNS_TAG, Egress, is_interface, outbound_of, takes_peers, xray_config

#: As a real panel sent it; the keys are throwaway.
RECORDED = (
    '{"interface_name": "wg0", "private_key": "iNYYcyzO9yG90cYds7RMbOfVGvsLSBHm9+GsYILpvmw=", '
    '"pre_shared_key": "/fCHv1rbefW3s9ofcU4MseX10WiKy1zhDIh0KOzJw/I=", "listen_port": 51820, '
    '"address": ["10.66.0.1/24", "fd66::1/64"], "public_key": "OhzUy2vCJxVtUI+y3/l2zy+8YrJk7tDie/gMnsmmMHg="}'
)


def panel(**changes: Any) -> str:
    """The recorded config with other values; None takes one out."""
    config = json.loads(RECORDED) | changes
    return json.dumps({name: value for name, value in config.items() if value is not ...})


def made(text: str, egress: Egress | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(xray_config(text, egress) if egress is not None else xray_config(text))
    return document


def test_the_recorded_config() -> None:
    assert made(RECORDED) == {
        "log": {"loglevel": "warning"},
        "inbounds": [
            {
                "tag": "wg0",
                "protocol": "wireguard",
                "port": 51820,
                "settings": {
                    "secretKey": key_hex("iNYYcyzO9yG90cYds7RMbOfVGvsLSBHm9+GsYILpvmw="),
                    "address": ["10.66.0.1/24", "fd66::1/64"],
                    "mtu": 1420,
                    "peers": [],
                    "preSharedKey": key_hex("/fCHv1rbefW3s9ofcU4MseX10WiKy1zhDIh0KOzJw/I="),
                },
            }
        ],
        "outbounds": [{"protocol": "freedom", "tag": "wg0"}],
    }


def test_an_interface_is_told_from_a_config_of_the_core() -> None:
    assert is_interface(RECORDED)
    assert not any(map(is_interface, ("{", "{}", '{"inbounds": [], "private_key": ""}', xray_config(RECORDED))))


def test_which_cores_keep_users_in_wireguard_inbounds() -> None:
    assert all(map(takes_peers, ("26.6.27", "26.10.10", "27.1.0", "an unknown one")))
    assert not any(map(takes_peers, ("26.6.22", "25.12.8", "1.8.24")))


def test_what_may_be_left_out() -> None:
    text = json.dumps({"private_key": private_key("a"), "address": ["10.0.0.1/24"], "future": {"key": [1]}})
    inbound = made(text)["inbounds"][0]
    assert (inbound["tag"], inbound["port"]) == ("wg0", 51820)
    assert "preSharedKey" not in inbound["settings"]
    assert made(panel(pre_shared_key="", interface_name=""))["inbounds"][0]["tag"] == "wg0"


def test_what_may_be_named_besides() -> None:
    document = made(panel(mtu=1280, listen="::", interface_name="a-rather_long.interface-name"))
    inbound = document["inbounds"][0]
    assert (inbound["tag"], inbound["listen"], inbound["settings"]["mtu"]) == (
        "a-rather_long.interface-name",
        "::",
        1280,
    )
    assert document["outbounds"][0]["tag"] == inbound["tag"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"private_key": ...}, "private_key is missing: the interface needs one"),
        ({"private_key": "abc"}, "private_key is not a WireGuard key: it must be 32 bytes in base64"),
        ({"private_key": 5}, "private_key is not a WireGuard key"),
        ({"pre_shared_key": "A" * 44}, "pre_shared_key is not a WireGuard key"),
        ({"public_key": "abc"}, "public_key is not a WireGuard key"),
        ({"public_key": private_key("other")}, "public_key is not that of private_key"),
        ({"listen_port": 0}, "listen_port 0 is not valid: it must be a number from 1 to 65535"),
        ({"listen_port": 65536}, "listen_port 65536 is not valid"),
        ({"listen_port": "51820"}, "listen_port '51820' is not valid"),
        ({"listen_port": True}, "listen_port True is not valid"),
        ({"mtu": 100}, "mtu 100 is not valid: it must be a number from 576 to 9000"),
        ({"address": ...}, "address is missing: the interface needs at least one network, such as 10.0.0.1/24"),
        ({"address": []}, "address is missing"),
        ({"address": "10.0.0.1/24"}, "address must be a list, not a string"),
        ({"address": ["10.0.0.1/24", "10.0.0.1/40"]}, "address[1] '10.0.0.1/40' is no address or network"),
        ({"address": [7]}, "address[0] 7 is no address or network"),
        ({"interface_name": "wg 0"}, "interface_name 'wg 0' is not valid"),
        ({"interface_name": "-wg0"}, "interface_name '-wg0' is not valid"),
        ({"interface_name": 7}, "interface_name must be a string, not a number"),
        ({"interface_name": DNS_TAG}, f"interface_name '{DNS_TAG}' is not valid"),
        ({"listen": "eth0"}, "listen 'eth0' is no address"),
        ({"listen": 7}, "listen 7 is no address"),
        ({"latency": "x"}, "latency must be an object, not a string"),
        ({"latency": {"test_url": "ftp://x"}}, "latency.test_url 'ftp://x' is not valid"),
        ({"latency": {"test_url": 5}}, "latency.test_url 5 is not valid"),
        ({"latency": {"timeout_seconds": 0}}, "latency.timeout_seconds 0 is not valid: it must be a number up to 60"),
        ({"latency": {"timeout_seconds": "5"}}, "latency.timeout_seconds '5' is not valid"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(StartFailedError) as caught:
        xray_config(panel(**changes))
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("text", ["{", "[]", "5"])
def test_what_is_no_config_at_all(text: str) -> None:
    with pytest.raises(StartFailedError, match="config"):
        xray_config(text)


def test_no_error_shows_a_secret() -> None:
    secret = private_key("a")[:-2]
    with pytest.raises(StartFailedError) as caught:
        xray_config(panel(private_key=secret + "!"))
    assert secret[:8] not in str(caught.value)


def test_latency_is_probed_as_asked() -> None:
    document = made(panel(latency={"test_url": "http://192.0.2.1/x", "timeout_seconds": 1.5}))
    assert document["burstObservatory"] == {
        "subjectSelector": ["wg0"],
        "pingConfig": {"destination": "http://192.0.2.1/x", "interval": "30s", "sampling": 1, "timeout": "1500ms"},
    }
    usual = made(panel(latency={}))["burstObservatory"]["pingConfig"]
    assert (usual["destination"], usual["timeout"]) == ("https://www.gstatic.com/generate_204", "5000ms")
    assert "burstObservatory" not in made(RECORDED)


def test_what_an_operator_wants_besides() -> None:
    outbound = {"protocol": "socks", "tag": "mine", "settings": {"servers": []}}
    document = made(RECORDED, Egress(outbound, ("9.9.9.9", "2620:fe::fe"), sniffing=True))
    assert document["outbounds"] == [
        {"protocol": "socks", "tag": "wg0", "settings": {"servers": []}},
        {"tag": DNS_TAG, "protocol": "dns"},
    ]
    assert document["dns"] == {"servers": ["9.9.9.9", "2620:fe::fe"]}
    assert document["routing"]["rules"] == [
        {
            "type": "field",
            "inboundTag": ["wg0"],
            "ip": ["10.66.0.1/32", "fd66::1/128"],
            "port": "53",
            "outboundTag": DNS_TAG,
        }
    ]
    assert document["inbounds"][0]["sniffing"] == {"enabled": True, "destOverride": ["http", "tls", "quic"]}


def test_an_operators_outbound() -> None:
    assert outbound_of('{"protocol": "freedom"} // plain') == {"protocol": "freedom"}
    for text, error in (("{}", "protocol is missing"), ("[]", "must be a JSON object"), ("{", "not valid JSON")):
        with pytest.raises(StartFailedError, match=error):
            outbound_of(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted([*json.loads(RECORDED), "latency", "mtu", "listen"])), JSON)
def test_whatever_a_value_is_it_is_taken_or_named(name: str, value: Any) -> None:
    error = ""
    try:
        text = xray_config(panel(**{name: value}))
    except StartFailedError as caught:
        error = str(caught)
    else:
        base = parse_config(text, exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)
        assert [spec.managed for spec in base.inbounds] == [True]
    assert not error or error.startswith((name, "config"))
