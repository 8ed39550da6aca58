"""What SVCB and HTTPS records (RFC 9460) say of a service: where it is, and over which transports it is spoken.

Pure logic: what to ask for an endpoint, which records a client may use, which stacks they are for, and how they rank
these. It knows the security layers that stacks are named after and the ALPN names that imply one of them, but neither
DNS nor sockets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from neatpy.errors import EstablishmentError
from neatpy.establishment.targets import is_srv_name, port_of_service

if TYPE_CHECKING:
    from neatpy.endpoint import RemoteEndpoint

_LAYERS = {"quic": "QUIC", "tls": "TLS over TCP"}
"""The parts of stacks' names that an ALPN name can speak of, and how people write them."""

_LAYER_OF_ALPN = {
    "h3": "quic", "doq": "quic", "h2": "tls", "http/1.1": "tls", "http/1.0": "tls", "dot": "tls"
}  # fmt: skip
"""Names that are registered for one layer. Others may be spoken over any."""

_ATTRIBUTES = {"domain": "dns", "domain-s": "dns"}
"""Services whose records are kept under another name (RFC 9461)."""

_NOT_IN_DNS = ("localhost", "local")
_MOST_RECORDS = 8
"""So many records of one answer are used: nobody shall fill the race with them."""


class Question(NamedTuple):
    """What to ask DNS: a name, and the type of record (HTTPS or SVCB)."""

    name: str
    kind: str


class ServiceRecord(NamedTuple):
    """One SVCB or HTTPS record. ``priority`` 0 makes it an alias of ``target``, which is empty where the service is
    said not to be there. ``alpn`` are the protocols it names; ``default_alpn`` is whether those that go without saying
    are spoken too. ``hints`` are addresses of the target, IPv6 first."""

    priority: int
    target: str
    port: int | None = None
    alpn: tuple[str, ...] = ()
    default_alpn: bool = True
    hints: tuple[str, ...] = ()


class Binding:
    """One alternative endpoint of a service: its host and port, and what a record says of the protocols there.

    ``layers`` are those over which a protocol of ours is spoken, ``named`` those that the record speaks of at all.
    """

    __slots__ = ("_kind", "_offers", "_place", "hints", "host", "layers", "named", "port")

    def __init__(self, record: ServiceRecord, kind: str, host: str, port: int, alpn: Collection[str]) -> None:
        """``host`` and ``port`` are the endpoint's own; ``alpn`` the program's protocols, none for any."""
        self.host = record.target
        self.port = record.port or port
        self.hints = record.hints
        self._kind = kind
        self._place = f"port {self.port}"
        if not same_host(self.host, host):
            self._place = f"{self.host}, {self._place}"
        spoken = record.alpn
        if kind == "HTTPS" and record.default_alpn and "http/1.1" not in spoken:
            spoken += ("http/1.1",)
        self.named = {layer for name in spoken if (layer := _layer_of_alpn(name)) is not None}
        self._offers: dict[str, list[str]] = {}
        for name in spoken:
            layer = _layer_of_alpn(name)
            if name in alpn or (not alpn and layer is not None):
                for each in _LAYERS if layer is None else (layer,):
                    self._offers.setdefault(each, []).append(name)
        # A record without any name tells where the service is, and nothing of its protocols.
        self.layers = frozenset(self._offers if spoken else _LAYERS)

    def is_for(self, stack: str) -> bool:
        """Whether this stack, by name, may be tried there."""
        return layer_of(stack) in self.layers

    def offer(self, stack: str) -> str | None:
        """That the record offers a protocol of ours over this stack, in words; None if it does not."""
        names = self._offers.get(layer_of(stack) or "")
        return f"an {self._kind} record offers {' and '.join(names)} at {self._place}" if names else None

    def location(self, stack: str) -> str:
        """Why this stack is tried there, in words."""
        return self.offer(stack) or f"an {self._kind} record has the service at {self._place}"

    def lack(self, layer: str) -> str:
        """That the record offers nothing over this layer, in words."""
        return f"an {self._kind} record offers nothing over {_LAYERS[layer]}"


class Advice:
    """How the records of the endpoints rank stacks."""

    __slots__ = ("_answers",)

    def __init__(self, answers: Iterable[Sequence[Binding]]) -> None:
        """Takes the bindings of each endpoint, none for one without records."""
        self._answers = [bindings for bindings in answers if bindings]

    def __bool__(self) -> bool:
        return bool(self._answers)

    def of(self, stack: str) -> tuple[int, tuple[str, ...]]:
        """-1 for a stack that records offer, 1 for one that they leave out, 0 for one of which they say nothing; and
        the reasons."""
        layer = layer_of(stack)
        if layer is None:
            return 0, ()
        offers = [binding.offer(stack) for bindings in self._answers for binding in bindings]
        offered = tuple(dict.fromkeys(words for words in offers if words is not None))
        if offered:
            return -1, offered
        left_out = [bindings[0].lack(layer) for bindings in self._answers if _leave_out(bindings, layer)]
        return int(bool(left_out)), tuple(dict.fromkeys(left_out))


NO_ADVICE = Advice(())


def _leave_out(bindings: Sequence[Binding], layer: str) -> bool:
    """Whether these records are of use to us over other layers alone, or speak of other layers alone."""
    usable = {each for binding in bindings for each in binding.layers}
    if usable:
        return layer not in usable
    named = {each for binding in bindings for each in binding.named}
    return bool(named) and layer not in named


def question_for(endpoint: RemoteEndpoint) -> Question | None:
    """What to ask for an endpoint with a host name and a service's IANA name; None for all others, and for names that
    are no business of DNS.

    The service ``https`` has HTTPS records at the host itself, every other has SVCB records at ``_service.host``; for
    a port that is not the service's own, ``_port`` goes before that (RFC 9460 sections 2.3 and 9.1). Raises
    EstablishmentError(RESOLUTION_FAILED) for a service without port that is not known.
    """
    host, service = endpoint.hostname, endpoint.service
    if host is None or endpoint.address is not None or service is None or is_srv_name(service):
        return None
    host, service = host.removesuffix("."), service.lower()
    # What a record for http would say is that https is spoken (section 9.5), which is not what was asked for.
    if service == "http" or host.lower().rpartition(".")[2] in _NOT_IN_DNS:
        return None
    kind, name = ("HTTPS", host) if service == "https" else ("SVCB", _attribute(service, host))
    if endpoint.port is not None and not _is_usual(endpoint.port, service):
        name = f"_{endpoint.port}.{_attribute(service, host)}"
    return Question(name, kind)


def alias_of(records: Iterable[ServiceRecord]) -> str | None:
    """The name that the first alias among these leads to; None if there is no alias."""
    return next((record.target for record in records if record.priority == 0 and record.target), None)


def bindings_of(
    records: Iterable[ServiceRecord], kind: str, host: str, port: int, alpn: Collection[str]
) -> list[Binding]:
    """The alternative endpoints that these records describe, best first; ``host`` and ``port`` are the endpoint's own,
    ``alpn`` the program's protocols, none for any."""
    services = sorted(
        (record for record in records if record.priority > 0 and record.target),
        key=lambda record: (record.priority, record.target, record.port or port),
    )
    return [Binding(record, kind, host, port, alpn) for record in services[:_MOST_RECORDS]]


def binding_of_alias(target: str, kind: str, host: str, port: int) -> Binding:
    """The alternative endpoint of an alias that leads to no records: the same port there, for all protocols."""
    return Binding(ServiceRecord(1, target, default_alpn=False), kind, host, port, ())


def layer_of(stack: str) -> str | None:
    """The layer of a stack, by its name, that an ALPN name can speak of; None if it has none."""
    parts = stack.split("/")
    return next((layer for layer in _LAYERS if layer in parts), None)


def same_host(one: str, other: str) -> bool:
    """Whether two host names are the same."""
    return one.lower().removesuffix(".") == other.lower().removesuffix(".")


def _layer_of_alpn(name: str) -> str | None:
    return "quic" if name.startswith("h3-") else _LAYER_OF_ALPN.get(name)


def _attribute(service: str, host: str) -> str:
    return f"_{_ATTRIBUTES.get(service, service)}.{host}"


def _is_usual(port: int, service: str) -> bool:
    try:
        return port == port_of_service(service)
    except EstablishmentError:
        return False
