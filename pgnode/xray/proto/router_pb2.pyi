from pgnode.xray.proto import geodata_pb2 as _geodata_pb2
from pgnode.xray.proto import net_pb2 as _net_pb2
from pgnode.xray.proto import network_pb2 as _network_pb2
from pgnode.xray.proto import typed_message_pb2 as _typed_message_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WebhookConfig(_message.Message):
    __slots__ = ("url", "deduplication", "headers")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URL_FIELD_NUMBER: _ClassVar[int]
    DEDUPLICATION_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    url: str
    deduplication: int
    headers: _containers.ScalarMap[str, str]
    def __init__(self, url: _Optional[str] = ..., deduplication: _Optional[int] = ..., headers: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RoutingRule(_message.Message):
    __slots__ = ("tag", "balancing_tag", "rule_tag", "domain", "ip", "port_list", "networks", "source_ip", "source_port_list", "user_email", "inbound_tag", "protocol", "attributes", "local_ip", "local_port_list", "vless_route_list", "process", "webhook", "local_os")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TAG_FIELD_NUMBER: _ClassVar[int]
    BALANCING_TAG_FIELD_NUMBER: _ClassVar[int]
    RULE_TAG_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    USER_EMAIL_FIELD_NUMBER: _ClassVar[int]
    INBOUND_TAG_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_IP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    VLESS_ROUTE_LIST_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    LOCAL_OS_FIELD_NUMBER: _ClassVar[int]
    tag: str
    balancing_tag: str
    rule_tag: str
    domain: _containers.RepeatedCompositeFieldContainer[_geodata_pb2.DomainRule]
    ip: _containers.RepeatedCompositeFieldContainer[_geodata_pb2.IPRule]
    port_list: _net_pb2.PortList
    networks: _containers.RepeatedScalarFieldContainer[_network_pb2.Network]
    source_ip: _containers.RepeatedCompositeFieldContainer[_geodata_pb2.IPRule]
    source_port_list: _net_pb2.PortList
    user_email: _containers.RepeatedScalarFieldContainer[str]
    inbound_tag: _containers.RepeatedScalarFieldContainer[str]
    protocol: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    local_ip: _containers.RepeatedCompositeFieldContainer[_geodata_pb2.IPRule]
    local_port_list: _net_pb2.PortList
    vless_route_list: _net_pb2.PortList
    process: _containers.RepeatedScalarFieldContainer[str]
    webhook: WebhookConfig
    local_os: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tag: _Optional[str] = ..., balancing_tag: _Optional[str] = ..., rule_tag: _Optional[str] = ..., domain: _Optional[_Iterable[_Union[_geodata_pb2.DomainRule, _Mapping]]] = ..., ip: _Optional[_Iterable[_Union[_geodata_pb2.IPRule, _Mapping]]] = ..., port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., networks: _Optional[_Iterable[_Union[_network_pb2.Network, str]]] = ..., source_ip: _Optional[_Iterable[_Union[_geodata_pb2.IPRule, _Mapping]]] = ..., source_port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., user_email: _Optional[_Iterable[str]] = ..., inbound_tag: _Optional[_Iterable[str]] = ..., protocol: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., local_ip: _Optional[_Iterable[_Union[_geodata_pb2.IPRule, _Mapping]]] = ..., local_port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., vless_route_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., process: _Optional[_Iterable[str]] = ..., webhook: _Optional[_Union[WebhookConfig, _Mapping]] = ..., local_os: _Optional[_Iterable[str]] = ...) -> None: ...

class BalancingRule(_message.Message):
    __slots__ = ("tag", "outbound_selector", "strategy", "strategy_settings", "fallback_tag")
    TAG_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_TAG_FIELD_NUMBER: _ClassVar[int]
    tag: str
    outbound_selector: _containers.RepeatedScalarFieldContainer[str]
    strategy: str
    strategy_settings: _typed_message_pb2.TypedMessage
    fallback_tag: str
    def __init__(self, tag: _Optional[str] = ..., outbound_selector: _Optional[_Iterable[str]] = ..., strategy: _Optional[str] = ..., strategy_settings: _Optional[_Union[_typed_message_pb2.TypedMessage, _Mapping]] = ..., fallback_tag: _Optional[str] = ...) -> None: ...

class StrategyWeight(_message.Message):
    __slots__ = ("regexp", "match", "value")
    REGEXP_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    regexp: bool
    match: str
    value: float
    def __init__(self, regexp: _Optional[bool] = ..., match: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class StrategyLeastLoadConfig(_message.Message):
    __slots__ = ("costs", "baselines", "expected", "maxRTT", "tolerance")
    COSTS_FIELD_NUMBER: _ClassVar[int]
    BASELINES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    MAXRTT_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    costs: _containers.RepeatedCompositeFieldContainer[StrategyWeight]
    baselines: _containers.RepeatedScalarFieldContainer[int]
    expected: int
    maxRTT: int
    tolerance: float
    def __init__(self, costs: _Optional[_Iterable[_Union[StrategyWeight, _Mapping]]] = ..., baselines: _Optional[_Iterable[int]] = ..., expected: _Optional[int] = ..., maxRTT: _Optional[int] = ..., tolerance: _Optional[float] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("domain_strategy", "rule", "balancing_rule")
    class DomainStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AsIs: _ClassVar[Config.DomainStrategy]
        IpIfNonMatch: _ClassVar[Config.DomainStrategy]
        IpOnDemand: _ClassVar[Config.DomainStrategy]
    AsIs: Config.DomainStrategy
    IpIfNonMatch: Config.DomainStrategy
    IpOnDemand: Config.DomainStrategy
    DOMAIN_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    BALANCING_RULE_FIELD_NUMBER: _ClassVar[int]
    domain_strategy: Config.DomainStrategy
    rule: _containers.RepeatedCompositeFieldContainer[RoutingRule]
    balancing_rule: _containers.RepeatedCompositeFieldContainer[BalancingRule]
    def __init__(self, domain_strategy: _Optional[_Union[Config.DomainStrategy, str]] = ..., rule: _Optional[_Iterable[_Union[RoutingRule, _Mapping]]] = ..., balancing_rule: _Optional[_Iterable[_Union[BalancingRule, _Mapping]]] = ...) -> None: ...
