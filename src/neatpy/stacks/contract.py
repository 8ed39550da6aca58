"""The contract between a Connection and the protocol stacks, on one page.

A :class:`Stack` makes :class:`Flow` objects, by connecting to a :class:`Candidate` or by listening. A Flow is one
bidirectional (or unidirectional) sequence of data with a peer; whoever drives it is its :class:`FlowObserver`: the
attempt while candidates race, the Connection afterwards. A layer (TLS over TCP, framers over anything) is a Flow that
observes the Flow below it. Nobody above this page learns which protocol it talks to.

Rules that hold for every Flow:

- One loop, no threads, nothing blocks. A Flow calls its observer from the loop, never from inside ``send``, ``close``,
  ``abort`` or any other call made *by* its observer, except that ``uncork`` may call ``sent``.
- ``send`` is only called while ``writable`` is true (more often than once is fine as long as it stays true).
- After ``closed`` nothing else is called on the observer; ``closed`` comes exactly once unless ``abort`` was called.
"""

from __future__ import annotations

import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from neatpy.errors import CloneError, PropertyError, Reason
from neatpy.message import Data as Data

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.errors import TransportServicesError
    from neatpy.message import MessageContext
    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters
    from neatpy.stacks.features import Features
    from neatpy.system.datagrams import DatagramPorts


class Availability:
    """Whether a stack can be used on this host; ``reason`` says why not."""

    __slots__ = ("available", "reason")

    def __init__(self, available: bool, reason: str = "") -> None:
        self.available = available
        self.reason = reason


AVAILABLE = Availability(True)


class Address(NamedTuple):
    """An IP address with port. ``scope`` is the zone of an IPv6 link-local address (an interface name or index)."""

    ip: str
    port: int
    scope: str = ""

    @classmethod
    def of(cls, sockaddr: tuple[Any, ...]) -> Address:
        """What a socket gives for an address; one that has none gives nothing."""
        if not sockaddr:
            return cls("0.0.0.0", 0)
        ip, _, zone = str(sockaddr[0]).partition("%")
        scope = sockaddr[3] if len(sockaddr) > 3 and sockaddr[3] else zone
        return cls(ip, sockaddr[1], str(scope) if scope else "")

    def sockaddr(self) -> tuple[Any, ...]:
        """The address in the form that sockets take. Raises OSError for an unknown zone."""
        if ":" not in self.ip:
            return (self.ip, self.port)
        zone = self.scope
        scope = 0 if not zone else int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
        return (self.ip, self.port, 0, scope)

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.ip

    @property
    def family(self) -> socket.AddressFamily:
        """The family of sockets for this address."""
        return socket.AF_INET6 if ":" in self.ip else socket.AF_INET

    def __str__(self) -> str:
        host = f"{self.ip}%{self.scope}" if self.scope else self.ip
        return f"[{host}]:{self.port}" if self.is_ipv6 else f"{host}:{self.port}"


class Candidate:
    """One leaf of the candidate tree: everything a stack needs to make one attempt (RFC 9623 section 4).

    ``interface`` is the name of the interface to bind to, or None to let the system route. ``local`` is the address
    to bind to (port 0: any), or None. ``server_name`` is the host name to verify and to send as SNI, or None, in which
    case security is verified against ``remote.ip``. ``early`` holds the bytes of a first Message that is safely
    replayable, or None: a stack may send them with its handshake, to whoever answers. It is told to send them once more
    when it is established, first of all, and then passes over what is there already.
    """

    __slots__ = (
        "early",
        "hop_limit",
        "interface",
        "label",
        "local",
        "properties",
        "remote",
        "security",
        "server_name",
        "stack",
    )

    def __init__(
        self,
        stack: Stack,
        remote: Address,
        properties: TransportProperties,
        security: SecurityParameters,
        *,
        local: Address | None = None,
        interface: str | None = None,
        server_name: str | None = None,
        hop_limit: int | None = None,
        label: str = "",
        early: bytes | None = None,
    ) -> None:
        self.early = early
        self.stack = stack
        self.remote = remote
        self.local = local
        self.interface = interface
        self.server_name = server_name
        self.hop_limit = hop_limit
        self.properties = properties
        self.security = security
        self.label = label

    def __repr__(self) -> str:
        place = f"[{self.remote}, {self.interface or 'any'}, {self.stack.name}]"
        return f"{self.label} {place}" if self.label else place


class ListenRequest:
    """Where and how a stack listens. Port 0 means any; the stack says which it got.

    ``admits`` says whether an IP address passes the remote endpoint filters; None: all do. ``plain_allowed`` is for
    opportunistic security: the stack below is eligible too, so a peer whose first bytes are not this layer's
    handshake is accepted as a Flow of the lower stack, with these bytes not lost. ``hop_limit`` is for the packets of
    what is accepted, None for the system's. ``refused`` is to be told of each peer whose handshake does not succeed,
    for whatever reason: there will be no Flow to tell of it.
    """

    __slots__ = (
        "admits",
        "datagrams",
        "hop_limit",
        "interface",
        "local",
        "plain_allowed",
        "properties",
        "refused",
        "security",
    )

    def __init__(
        self,
        local: Address,
        interface: str | None,
        properties: TransportProperties,
        security: SecurityParameters,
        datagrams: DatagramPorts,
        admits: Callable[[str], bool] | None = None,
        plain_allowed: bool = False,
        hop_limit: int | None = None,
        refused: Refused | None = None,
    ) -> None:
        self.local = local
        self.interface = interface
        self.properties = properties
        self.security = security
        self.datagrams = datagrams
        self.admits = admits
        self.plain_allowed = plain_allowed
        self.hop_limit = hop_limit
        self.refused = refused or _tell_nobody


class FlowObserver:
    """What a Flow tells whoever drives it. The methods here do nothing; observers override what they care for."""

    __slots__ = ()

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        """Data came. ``context`` is the same object for all parts of a Message; None on a byte stream, unless there is
        something to say of these bytes (they came early, and may be a replay).

        ``last``: this is the last thing that the Flow does in its turn, and no task is running, so that whoever waits
        for the data can be resumed in here."""

    def received_apart(self, data: bytes, context: MessageContext) -> bool:
        """A whole Message came beside the byte stream, wherever that is at present, and never after its end. Whether
        it was taken; what is not is lost, as such Messages may be."""
        return False

    def abandoned(self) -> None:
        """The peer has given up the Message of which parts came, whose lifetime is over: its end never comes. Others
        follow."""

    def sent(self, token: object) -> None:
        """The data sent with this token, for which ``send`` returned False, has been taken by the stack below."""

    def expired(self, token: object) -> None:
        """The Message sent with this token was given up because its lifetime ended."""

    def failed(self, token: object, error: TransportServicesError) -> None:
        """The data sent with this token will not be sent; the Flow itself lives on."""

    def writable(self) -> None:
        """``Flow.writable`` has become true again."""

    def sibling(self, flow: Flow) -> None:
        """The peer opened a stream beside this Flow. To keep it, set its observer before returning; else abort it."""

    def soft_error(self, error: TransportServicesError) -> None:
        """A transient error such as an ICMP message; nothing ends."""

    def path_changed(self) -> None:
        """The paths in use have changed; ``Flow.paths`` says which they are now."""

    def finished(self) -> None:
        """The peer will send no more (FIN, or the end of its stream). One can still send."""

    def finished_with(self, data: bytes, context: MessageContext | None) -> None:
        """The peer's last data came on a byte stream, and their end with them: ``received``, then ``finished``."""
        self.received(data, context, False)
        self.finished()

    def closed(self, error: TransportServicesError | None) -> None:
        """The Flow is over: None after a ``close`` that delivered everything, otherwise why it broke."""


class Flow(ABC):
    """One established sequence of data with a peer, over some stack."""

    __slots__ = ("observer",)

    observer: FlowObserver
    writable: bool
    preserves_boundaries: ClassVar[bool] = False
    """True: each ``received`` belongs to a Message of the stack's own. False: a byte stream."""

    @property
    @abstractmethod
    def stack(self) -> Stack:
        """The stack that made this Flow."""

    @property
    def can_send(self) -> bool:
        """Whether the protocol lets us send: not where the peer has opened a stream of its own alone."""
        return True

    @property
    @abstractmethod
    def local_address(self) -> Address:
        """The own side of the active path."""

    @property
    @abstractmethod
    def remote_address(self) -> Address:
        """The peer's side of the active path."""

    @abstractmethod
    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        """Take data; never blocks, never refuses while ``writable``.

        True: the stack below has it all (Sent). False: taken, and ``observer.sent(token)``, ``expired`` or ``failed``
        follows. ``data`` that is not ``bytes`` is only valid during the call, so what stays must be copied.
        Raises SendError if this Message can never be sent (too large, contradicting properties); nothing was taken.
        """

    def send_last(self, data: Data, context: MessageContext, token: object) -> bool:
        """Like ``send`` with the end of a Message, and then ``finish``."""
        taken = self.send(data, context, True, token)
        self.finish()
        return taken

    @property
    def coalesces(self) -> bool:
        """Whether ``send_several`` is better than single sends."""
        return False

    def send_several(self, messages: Sequence[bytes], context: MessageContext, token: object) -> bool:
        """Like ``send``, for several whole Messages with default properties and one token for all of them."""
        return self.send(b"".join(messages), context, True, token)

    @property
    def sends_apart(self) -> bool:
        """Whether a whole Message with ``msg_reliable`` false may leave beside the byte stream, by itself."""
        return False

    def keep_together(self) -> None:
        """Send nothing apart from now on: what is sent means nothing without what went before it."""

    def cork(self) -> None:
        """Data of the following sends may be coalesced until ``uncork``; they return False meanwhile."""

    def uncork(self) -> None:
        """Send what was corked. Calls ``observer.sent`` for what was taken at once."""

    @property
    def reads_ahead(self) -> int:
        """Bytes that may wait above, for somebody to ask for them, before the Flow is to be paused: few where several
        Flows share what the peer may send, which a paused one does not give back."""
        return sys.maxsize

    @abstractmethod
    def pause_receiving(self) -> None:
        """Stop calling ``received`` as soon as possible, so that the peer is flow-controlled. Idempotent."""

    @abstractmethod
    def resume_receiving(self) -> None:
        """Undo ``pause_receiving``. Idempotent."""

    @abstractmethod
    def finish(self) -> None:
        """After what was sent, tell the peer that no more will come (half-close). Receiving goes on. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Deliver what was sent, discard what arrives, then ``observer.closed(None)``, perhaps at once; with an error
        on a linger that ran out. Never waits for the peer to close. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """End at once, discarding what was not sent; the peer sees an abort. ``closed`` is not called. Idempotent."""

    def linger(self) -> None:
        """All was said, and only what the peer has missed is still answered: from now on nobody has to end the Flow,
        and a loop that ends forgets it. Idempotent."""

    def open_sibling(self, properties: TransportProperties) -> Flow | Coroutine[Any, Any, Flow]:
        """Open another stream to the same peer beside this one; its observer must be set before returning to the
        loop. Gives the stream, or a coroutine for it where the peer must be asked. Raises CloneError(NOT_CLONEABLE)
        where the stack has no streams: then the group connects anew."""
        raise CloneError(f"{self.stack.name} has no streams", Reason.NOT_CLONEABLE)

    def apply(self, name: str, value: object) -> None:
        """Make a Connection Property (snake_case) act from now on. Names without effect here are ignored.

        Raises PropertyError if the value cannot be applied; nothing has changed then."""

    def change_paths(self, action: str, endpoint: LocalEndpoint | RemoteEndpoint) -> None:
        """Do what ``action`` says with an endpoint of the Connection: ``add_local``, ``remove_local``, ``add_remote``
        or ``remove_remote`` (RFC 9622 section 7.5). Raises PropertyError where the protocol cannot; nothing has changed
        then."""
        raise PropertyError(f"no {action} on {self.stack.name}: {self.stack.one_path}")

    def read(self, name: str) -> object:
        """The present value of a read-only Connection Property that depends on the stack, such as
        ``send_msg_max_len``; None if not applicable."""
        return None

    def statistics(self) -> dict[str, float]:
        """What the protocol measures, by name: ``rtt`` and ``rtt_variance`` (s), ``retransmissions`` … ."""
        return {}

    def security(self) -> dict[str, object]:
        """What was negotiated, by name (``protocol``, ``ciphersuite``, ``alpn``, ``peer_certificate`` as DER);
        empty when the stack is not secure."""
        return {}

    def backlog(self) -> int:
        """Bytes taken by ``send`` that are not delivered yet, as far as one can know: what a close still waits for."""
        return 0

    @property
    def paths(self) -> Sequence[tuple[Address, Address]]:
        """The pairs of local and remote address in use, the active one first."""
        return ((self.local_address, self.remote_address),)


class StackListener(ABC):
    """A stack that listens on one local address."""

    @property
    @abstractmethod
    def local_address(self) -> Address:
        """The real address and port."""

    @abstractmethod
    def close(self) -> None:
        """Accept no more; accepted Flows live on; handshakes in progress are aborted. Idempotent."""


Accepted = Callable[[Flow], None]
"""Called with each Flow whose handshake is complete; sets its observer, or aborts it, before returning."""

Refused = Callable[["Stack", Address, BaseException], None]
"""Called with the stack, the peer's address and the error of each handshake that did not succeed."""


def _tell_nobody(stack: Stack, remote: Address, error: BaseException) -> None:
    """Nobody wants to know."""


class Stack(ABC):
    """One protocol stack, such as ``tls/tcp``. There is one object of each class; a Flow keeps all state.

    A layered stack is named ``upper/lower`` and has its lower stack in ``lower``, put there by the registry.
    """

    name: ClassVar[str]
    features: ClassVar[Features]
    lower: Stack | None = None
    carrier: ClassVar[str] = ""
    """What its packets travel in, if a network may block that as a whole, such as ``udp``."""
    one_path: ClassVar[str] = "it uses one path"
    """Why endpoints cannot be added to or removed from a Connection (RFC 9622 section 7.5)."""

    def form(self, properties: TransportProperties) -> Stack:
        """The form in which the stack serves such properties: itself, unless it has several that provide different
        features. All have its name, and a Flow's stack is the form that made it."""
        return self

    @property
    def other_forms(self) -> Mapping[str, Stack]:
        """The forms beside this one whose features are a world of their own, by a word for each."""
        return {}

    def load(self) -> Awaitable[object] | None:
        """What must be done before the first attempt can begin, such as to import a library that takes its time, beside
        the loop and other candidates; None if there is nothing. A race does not count it against the stack."""
        return None

    def available(self) -> Availability:
        """Whether this host can run the stack. Cheap after the first call, and never raises."""
        return AVAILABLE

    def security_obstacle(self, security: SecurityParameters, *, listening: bool = False) -> str | None:
        """Why these security parameters rule this stack out, or None. Only asked of secure stacks."""
        return None

    @abstractmethod
    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        """One attempt, handshakes included. ``observer`` becomes the Flow's observer and may be called even before
        this returns. Cancelling ends the attempt and frees all it took. Raises OSError or EstablishmentError."""

    def begin(self, candidate: Candidate, observer: FlowObserver) -> Flow | Coroutine[Any, Any, Flow]:
        """Start an attempt: gives its Flow if that is there at once, else what remains to be awaited, as ``connect``.

        For stacks that may need no turn of the loop. Raises as ``connect`` does."""
        return self.connect(candidate, observer)

    @abstractmethod
    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        """Bind and start accepting. Raises OSError or EstablishmentError."""
