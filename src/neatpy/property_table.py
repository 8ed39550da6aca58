"""The one table that declares every Transport Property: name, kind, type, default, section, meaning.

Each row is a descriptor in the body of one of three classes; TransportProperties has all of them as attributes,
MessageContext those of Messages. Validation, look-up by name, documentation and the conformance table read the rows.
Values that were set live in one dict of the object, made when the first is set; everything else is the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from neatpy import enumerations
from neatpy.enumerations import ConnectionState, Direction, Preference, PropertyKind
from neatpy.errors import PropertyError

if TYPE_CHECKING:
    from typing import Self

    from neatpy.enumerations import CapacityProfile, InterfaceType, Multipath, MultipathPolicy, Scheduler

T = TypeVar("T")
Check = Callable[[Any], Any]
"""Gives the value as it is kept. Raises TypeError or ValueError with what is allowed."""

_NOTHING: Mapping[str, object] = MappingProxyType({})


class HasProperties:
    """An object with properties as attributes. ``_values`` holds those that were set, by canonical name."""

    __slots__ = ("_values",)

    _values: dict[str, Any] | None

    def explicit(self) -> Mapping[str, object]:
        """The properties that were set, by canonical name, in the order in which they were; not to be changed."""
        return self._values if self._values is not None else _NOTHING


class Property(Generic[T]):
    """One property: a descriptor that checks what is set and gives the default for what is not.

    ``name`` is canonical: snake_case, with the namespace before a dot (``tcp.user_timeout_value``). ``rfc_name`` is
    spelled as in the RFC; ``section`` is the RFC's. ``allowed`` says which values are, with their unit.
    """

    __slots__ = ("_check", "allowed", "default", "doc", "kind", "name", "read_only", "rfc_name", "section")

    def __init__(
        self,
        rfc_name: str,
        section: str,
        default: T,
        check: Check | None,
        allowed: str,
        doc: str,
    ) -> None:
        self.rfc_name = rfc_name
        self.section = section
        self.default = default
        self.allowed = allowed
        self.doc = doc
        self.read_only = check is None
        self._check = check
        self.name = ""
        self.kind = PropertyKind.CONNECTION

    def __set_name__(self, owner: type, attribute: str) -> None:
        namespace, dot, _ = self.rfc_name.partition(".")
        self.name = f"{namespace}.{attribute.removeprefix(namespace.lstrip('_') + '_')}" if dot else attribute
        self.kind = owner.kind  # type: ignore[attr-defined]  # the three classes below have it

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: HasProperties, owner: type) -> T: ...

    def __get__(self, instance: HasProperties | None, owner: type) -> Any:
        if instance is None:
            return self
        values = instance._values
        return self.default if values is None else values.get(self.name, self.default)

    def __set__(self, instance: HasProperties, value: T) -> None:
        kept = self.check(value)
        if instance._values is None:
            instance._values = {self.name: kept}
        else:
            instance._values[self.name] = kept

    def __repr__(self) -> str:
        return f"<Property {self.name}>"

    def check(self, value: object) -> T:
        """The value as it is kept. Raises PropertyError for a read-only property, TypeError or ValueError for a value
        that is not allowed."""
        if self._check is None:
            raise PropertyError(f"{self.name} is read-only: it tells about a Connection")
        try:
            kept: T = self._check(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name} takes {self.allowed}, not {value!r}") from None
        return kept


class _Choice(Property[T]):
    """A property whose values are members of an enumeration that is loaded when the property is first looked at.

    ``default`` is the name of a member. Without one, None is allowed too, and the default; ``otherwise`` says what it
    means then.
    """

    __slots__ = ("_default", "_enumeration", "_otherwise")

    def __init__(
        self,
        rfc_name: str,
        section: str,
        enumeration: str,
        default: str | None,
        doc: str,
        otherwise: str = "None",
    ) -> None:
        self.rfc_name = rfc_name
        self.section = section
        self.doc = doc
        self.read_only = False
        self._enumeration = enumeration
        self._default = default
        self._otherwise = otherwise
        if default is None:
            self.default = None  # type: ignore[assignment]  # T includes None then

    def __getattr__(self, name: str) -> Any:
        """Fill in what depends on the enumeration."""
        if name not in ("_check", "allowed", "default"):
            raise AttributeError(name)
        enumeration: type[Any] = getattr(enumerations, self._enumeration)
        self._check = _member(enumeration)
        self.allowed = _one_of(enumeration)
        if self._default is None:
            self._check = _or_none(self._check)
            self.allowed = f"{self.allowed}, or {self._otherwise}"
        else:
            self.default = enumeration[self._default]
        return getattr(self, name)


_SEPARATORS = str.maketrans("-_/", "   ")
"""What may stand between the words of a member's name: ``Low Latency/Interactive`` is the RFC's spelling of one."""


def _member(enumeration: type[Any]) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, enumeration):
            return value
        if isinstance(value, str):
            wanted = "_".join(value.upper().translate(_SEPARATORS).split())
            if wanted in enumeration.__members__:
                return enumeration[wanted]
            raise ValueError
        raise TypeError

    return check


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any, least: int, most: float = math.inf) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    if not least <= value <= most:
        raise ValueError
    return int(value)


def _non_negative(value: Any) -> int:
    return _whole(value, 0)


def _port(value: Any) -> int | None:
    return None if value is None else _whole(value, 1, 65535)


def _unsigned_32(value: Any) -> int:
    return _whole(value, 0, 0xFFFFFFFF)


def _at_least_one(value: Any) -> int:
    return _whole(value, 1)


def _at_least_one_or_none(value: Any) -> int | None:
    return None if value is None else _whole(value, 1)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    if not value > 0:
        raise ValueError
    return value


def _number_or_none(value: Any) -> float | None:
    if value is None:
        return None
    if _number(value) == math.inf:
        raise ValueError
    try:
        return float(value)
    except OverflowError:
        raise ValueError from None


def _coverage(value: Any) -> float:
    return math.inf if value == math.inf else _whole(value, 0)


def _count_or_unlimited(value: Any) -> float:
    return math.inf if value == math.inf else _whole(value, 1)


def _or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _named(value: Any) -> Any:
    return _pairs(value, str)


def _named_or_typed(value: Any) -> Any:
    return _pairs(value, str, enumerations.InterfaceType)


def _pairs(value: Any, *kinds: type) -> Any:
    """A set of (preference, name or type); one of them twice with different preferences is a contradiction."""
    if isinstance(value, str | bytes):
        raise TypeError
    pairs = frozenset(value)
    chosen: dict[Any, Preference] = {}
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError
        preference, name = pair
        if not isinstance(preference, Preference) or not isinstance(name, kinds):
            raise TypeError
        if name == "" or chosen.setdefault(name, preference) is not preference:
            raise ValueError
    return pairs


def _one_of(enumeration: type[Any]) -> str:
    *others, last = enumeration.__members__
    return f"a {enumeration.__name__} ({', '.join(others)} or {last})"


_PREFERENCE = _one_of(Preference)
_SECONDS = "a number of seconds above 0, or None for disabled"
_RATE = "a number of bits per second above 0, or math.inf for unlimited"
_BOOLEAN = "True or False"
_COVERAGE = "a number of bytes of at least 0, or math.inf for full coverage"
_PRIORITY = "a whole number of at least 0, where lower is more urgent"
_NO_CHOICES: frozenset[Any] = frozenset()
_preference = _member(Preference)


def _preferred(rfc_name: str, section: str, default: Preference, doc: str) -> Property[Preference]:
    return Property(rfc_name, section, default, _preference, _PREFERENCE, doc)


def _rate(rfc_name: str, doc: str) -> Property[float]:
    return Property(rfc_name, "8.1.8", math.inf, _number, _RATE, doc)


def _told(rfc_name: str, section: str, doc: str) -> Property[Any]:
    return Property(rfc_name, section, None, None, "nothing: it is read-only", doc)


class SelectionProperties(HasProperties):
    """What decides which stacks and paths are candidates (RFC 9622 section 6.2)."""

    __slots__ = ()
    kind = PropertyKind.SELECTION

    reliability = _preferred(
        "reliability", "6.2.1", Preference.REQUIRE, "All data arrive, or the Connection fails."
    )
    preserve_msg_boundaries = _preferred(
        "preserveMsgBoundaries", "6.2.2", Preference.NO_PREFERENCE, "Messages keep their boundaries."
    )
    per_msg_reliability = _preferred(
        "perMsgReliability", "6.2.3", Preference.NO_PREFERENCE, "Reliability can be chosen for each Message."
    )
    preserve_order = _preferred(
        "preserveOrder", "6.2.4", Preference.REQUIRE, "Data arrive in the order of sending."
    )
    zero_rtt_msg = _preferred(
        "zeroRttMsg", "6.2.5", Preference.NO_PREFERENCE, "A first Message can leave with the handshake."
    )
    multistreaming = _preferred(
        "multistreaming", "6.2.6", Preference.PREFER, "Connections of a group share one transport connection."
    )
    full_checksum_send = _preferred(
        "fullChecksumSend", "6.2.7", Preference.REQUIRE, "Sent data are covered by a checksum in full."
    )
    full_checksum_recv = _preferred(
        "fullChecksumRecv", "6.2.8", Preference.REQUIRE, "Received data are covered by a checksum in full."
    )
    congestion_control = _preferred(
        "congestionControl", "6.2.9", Preference.REQUIRE, "The transport controls congestion."
    )
    keep_alive = _preferred(
        "keepAlive", "6.2.10", Preference.NO_PREFERENCE, "The transport probes an idle connection."
    )
    interface: Property[frozenset[tuple[Preference, str | InterfaceType]]] = Property(
        "interface", "6.2.11", _NO_CHOICES, _named_or_typed,
        "a set of (Preference, interface name or InterfaceType), each name or type once",
        "Which network interfaces to use, by name or InterfaceType.",
    )  # fmt: skip
    pvd: Property[frozenset[tuple[Preference, str]]] = Property(
        "pvd", "6.2.12", _NO_CHOICES, _named, "a set of (Preference, name of a provisioning domain), each once",
        "Which provisioning domains to use.",
    )  # fmt: skip
    use_temporary_local_address: Property[Preference | None] = Property(
        "useTemporaryLocalAddress", "6.2.13", None, _or_none(_preference), f"{_PREFERENCE}, or None",
        "Temporary (privacy) local addresses. None: avoided by Listeners and Rendezvous, preferred by others.",
    )  # fmt: skip
    multipath: Property[Multipath | None] = _Choice(
        "multipath", "6.2.14", "Multipath", None,
        "Use of several paths. None: passive for Listeners, disabled for others.",
    )  # fmt: skip
    advertises_altaddr: Property[bool] = Property(
        "advertisesAltaddr",
        "6.2.15",
        False,
        _boolean,
        _BOOLEAN,
        "Alternative addresses may be told to the peer.",
    )
    direction: Property[Direction] = Property(
        "direction",
        "6.2.16",
        Direction.BIDIRECTIONAL,
        _member(Direction),
        _one_of(Direction),
        "Which ways data flow.",
    )
    soft_error_notify = _preferred(
        "softErrorNotify", "6.2.17", Preference.NO_PREFERENCE, "ICMP errors are reported as soft errors."
    )
    active_read_before_send = _preferred(
        "activeReadBeforeSend",
        "6.2.18",
        Preference.NO_PREFERENCE,
        "The initiator may read before it first sends.",
    )


class ConnectionProperties(HasProperties):
    """What acts on an established Connection, and may be set before (RFC 9622 section 8)."""

    __slots__ = ()
    kind = PropertyKind.CONNECTION

    recv_checksum_len: Property[float] = Property(
        "recvChecksumLen", "8.1.1", math.inf, _coverage, _COVERAGE,
        "Bytes of a received Message that a checksum must cover.",
    )  # fmt: skip
    conn_priority: Property[int] = Property(
        "connPriority", "8.1.2", 100, _non_negative, _PRIORITY,
        "Priority among the Connections of a group; not entangled.",
    )  # fmt: skip
    conn_timeout: Property[float | None] = Property(
        "connTimeout", "8.1.3", None, _number_or_none, _SECONDS,
        "How long sent data may stay unacknowledged before the Connection fails.",
    )  # fmt: skip
    keep_alive_timeout: Property[float | None] = Property(
        "keepAliveTimeout", "8.1.4", None, _number_or_none, _SECONDS,
        "How long a Connection is idle before the transport probes it.",
    )  # fmt: skip
    conn_scheduler: Property[Scheduler] = _Choice(
        "connScheduler", "8.1.5", "Scheduler", "WEIGHTED_FAIR_QUEUEING",
        "How the Connections of a group share capacity.",
    )  # fmt: skip
    conn_capacity_profile: Property[CapacityProfile] = _Choice(
        "connCapacityProfile", "8.1.6", "CapacityProfile", "DEFAULT",
        "What the traffic wants of the network.",
    )  # fmt: skip
    multipath_policy: Property[MultipathPolicy] = _Choice(
        "multipathPolicy", "8.1.7", "MultipathPolicy", "HANDOVER",
        "How several paths are used.",
    )  # fmt: skip
    min_send_rate = _rate("minSendRate", "Below this rate of sending the Connection is of no use.")
    min_recv_rate = _rate("minRecvRate", "Below this rate of receiving the Connection is of no use.")
    max_send_rate = _rate("maxSendRate", "No more than this is sent.")
    max_recv_rate = _rate("maxRecvRate", "No more than this is received.")
    group_conn_limit: Property[float] = Property(
        "groupConnLimit", "8.1.9", math.inf, _count_or_unlimited,
        "a whole number of at least 1, or math.inf for unlimited",
        "How many Connections of one group the peer may make.",
    )  # fmt: skip
    isolate_session: Property[bool] = Property(
        "isolateSession",
        "8.1.10",
        False,
        _boolean,
        _BOOLEAN,
        "Nothing cached is used for or kept of the Connection.",
    )
    conn_state: Property[ConnectionState | None] = _told(
        "connState", "8.1.11.1", "Where the Connection is in its life."
    )
    can_send: Property[bool | None] = _told(
        "canSend", "8.1.11.2", "Whether a Message sent now would be accepted."
    )
    can_receive: Property[bool | None] = _told("canReceive", "8.1.11.3", "Whether more data may arrive.")
    singular_transmission_msg_max_len: Property[int | None] = _told(
        "singularTransmissionMsgMaxLen", "8.1.11.4",
        "Bytes of the largest Message that fits into one packet; None where that does not apply.",
    )  # fmt: skip
    send_msg_max_len: Property[int | None] = _told(
        "sendMsgMaxLen", "8.1.11.5", "Bytes of the largest Message that can be sent; 0 if none can."
    )
    recv_msg_max_len: Property[int | None] = _told(
        "recvMsgMaxLen", "8.1.11.6", "Bytes of the largest Message that can be received; 0 if none can."
    )
    tcp_user_timeout_value: Property[int | None] = Property(
        "tcp.userTimeoutValue", "8.2.1", None, _at_least_one_or_none,
        "a whole number of seconds of at least 1, or None for the TCP default", "TCP's advertised user timeout.",
    )  # fmt: skip
    tcp_user_timeout_enabled: Property[bool] = Property(
        "tcp.userTimeoutEnabled",
        "8.2.2",
        False,
        _boolean,
        _BOOLEAN,
        "Whether TCP's user timeout option is used.",
    )
    tcp_user_timeout_changeable: Property[bool] = Property(
        "tcp.userTimeoutChangeable", "8.2.3", True, _boolean, _BOOLEAN,
        "Whether the peer's user timeout option may change connTimeout.",
    )  # fmt: skip
    neatpy_encapsulation_port: Property[int | None] = Property(
        "_neatpy.encapsulationPort", "4.1", None, _port, "a port from 1 to 65535, or None for the endpoint's port",
        "Remote UDP port of SCTP over UDP (RFC 6951).",
    )  # fmt: skip
    neatpy_receive_limit: Property[int] = Property(
        "_neatpy.receiveLimit", "4.1", 4 * 1024 * 1024, _at_least_one, "a whole number of bytes of at least 1",
        "Bytes that may wait to be received before the peer is slowed down; larger Messages come in parts.",
    )  # fmt: skip


class MessageProperties(HasProperties):
    """What acts on single Messages (RFC 9622 section 9.1.3)."""

    __slots__ = ()
    kind = PropertyKind.MESSAGE

    msg_lifetime: Property[float] = Property(
        "msgLifetime", "9.1.3.1", math.inf, _number, "a number of seconds above 0, or math.inf",
        "How long a Message may wait to be sent before it is of no use.",
    )  # fmt: skip
    msg_priority: Property[int] = Property(
        "msgPriority",
        "9.1.3.2",
        100,
        _non_negative,
        _PRIORITY,
        "Priority among the Messages of a Connection.",
    )
    msg_ordered: Property[bool | None] = Property(
        "msgOrdered", "9.1.3.3", None, _or_none(_boolean), "True, False, or None to inherit preserveOrder",
        "Whether a Message keeps its place in the order.",
    )  # fmt: skip
    safely_replayable: Property[bool] = Property(
        "safelyReplayable", "9.1.3.4", False, _boolean, _BOOLEAN, "The peer may get a Message more than once."
    )
    final: Property[bool] = Property(
        "final", "9.1.3.5", False, _boolean, _BOOLEAN, "No Message follows this one."
    )
    msg_checksum_len: Property[float] = Property(
        "msgChecksumLen",
        "9.1.3.6",
        math.inf,
        _coverage,
        _COVERAGE,
        "Bytes of a Message that a checksum covers.",
    )
    msg_reliable: Property[bool | None] = Property(
        "msgReliable", "9.1.3.7", None, _or_none(_boolean), "True, False, or None to inherit reliability",
        "Whether a Message is sent again when it is lost.",
    )  # fmt: skip
    msg_capacity_profile: Property[CapacityProfile | None] = _Choice(
        "msgCapacityProfile", "9.1.3.8", "CapacityProfile", None, "What a Message wants of the network.",
        "None to inherit connCapacityProfile",
    )  # fmt: skip
    no_fragmentation: Property[bool] = Property(
        "noFragmentation",
        "9.1.3.9",
        False,
        _boolean,
        _BOOLEAN,
        "The network may not fragment a Message's packets.",
    )
    no_segmentation: Property[bool] = Property(
        "noSegmentation", "9.1.3.10", False, _boolean, _BOOLEAN, "A Message must fit into one packet."
    )
    neatpy_payload_protocol_id: Property[int] = Property(
        "_neatpy.payloadProtocolId", "4.1", 0, _unsigned_32, "a whole number from 0 to 4294967295",
        "SCTP's payload protocol identifier of a Message.",
    )  # fmt: skip


def _rows() -> dict[str, Property[Any]]:
    return {
        row.name: row
        for owner in (SelectionProperties, ConnectionProperties, MessageProperties)
        for row in vars(owner).values()
        if isinstance(row, Property)
    }


PROPERTIES: Mapping[str, Property[Any]] = MappingProxyType(_rows())
"""Every property by canonical name, in the order of the RFC."""

_BY_FOLDED = {name.replace("_", "").replace(".", ""): row for name, row in PROPERTIES.items()}


def find_property(name: str) -> Property[Any]:
    """The property of that name, in snake_case or as in the RFC, in any case.

    A namespace is followed by a dot, or by an underscore as in the attributes' names. Raises PropertyError, with what
    was perhaps meant, if there is none of that name, and TypeError if the name is no string.
    """
    row = PROPERTIES.get(name)
    if row is not None:
        return row
    if not isinstance(name, str):
        raise TypeError(f"a property's name is a string, not {name!r}")
    row = _BY_FOLDED.get(name.lower().replace("_", "").replace(".", ""))
    if row is None:
        import difflib

        close = difflib.get_close_matches(name.lower(), PROPERTIES, 3, 0.5)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise PropertyError(f"there is no property {name!r}{hint}")
    return row
