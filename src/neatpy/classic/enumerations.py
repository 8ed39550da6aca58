"""The enumerations of NEATPy 1.0 that are no properties. Plain data, which knows nothing of the system below."""

from enum import Enum

__all__ = [
    "AddressPreference", "CapacityProfiles", "CommunicationDirections", "ConnectionState", "ListenErrorReasons",
    "PreferenceLevel", "SendErrorReason", "ServiceLevel", "SupportedProtocolStacks", "TransportPropertyProfiles",
]  # fmt: skip


PreferenceLevel = Enum(
    "PreferenceLevel", {"REQUIRE": 2, "PREFER": 1, "IGNORE": 0, "AVOID": -1, "PROHIBIT": -2}
)
"""How much a Selection Property matters."""

ServiceLevel = Enum("ServiceLevel", {"INTRINSIC_SERVICE": 2, "OPTIONAL": 0, "NOT_PROVIDED": -2})
"""How a protocol stack provides a feature."""


class CapacityProfiles(Enum):
    """What traffic wants of the network; the values are DSCPs."""

    DEFAULT = 0
    SCAVENGER = 1
    LOW_LATENCY_INTERACTIVE = 36
    LOW_LATENCY_NON_INTERACTIVE = 18
    CONSTANT_RATE_STREAMING = 28
    CAPACITY_SEEKING = 10


class SendErrorReason(Enum):
    """Why a Message was not sent: the second argument of a sent handler."""

    CONNECTION_CLOSING = "the Connection is closing or closed"
    FINAL_MESSAGE_PASSED = "a Message marked as final has been sent before"
    INCONSISTENT_PROPERTIES_PASSED = "the Message's properties contradict those of the Connection"
    MESSAGE_TOO_LARGE = "the Message is too large for the protocol stack"
    FAILURE_UNDERLYING_STACK = "the protocol stack failed"
    MESSAGE_EXPIRED = "the Message's lifetime ended before it was sent"


class ListenErrorReasons(Enum):
    """Why a Listener could not listen: the argument of ``HANDLE_STATE_LISTEN_ERROR``."""

    UNFULFILLED_PROPERTIES = "the properties of the Preconnection cannot be fulfilled"
    UNRESOLVED_LOCAL_ENDPOINT = "the Local Endpoint cannot be used"
    PROHIBITED_BY_POLICY = "policy prohibits it"


ConnectionState = Enum("ConnectionState", "ESTABLISHING ESTABLISHED CLOSING CLOSED")
SupportedProtocolStacks = Enum("SupportedProtocolStacks", "UDP UDPLITE TCP MPTCP SCTP")
CommunicationDirections = Enum(
    "CommunicationDirections", "BIDIRECTIONAL UNIDIRECTIONAL_SEND UNIDIRECTIONAL_RECEIVE"
)
AddressPreference = Enum("AddressPreference", "STABLE TEMPORARY")
TransportPropertyProfiles = Enum(
    "TransportPropertyProfiles", "RELIABLE_INORDER_STREAM RELIABLE_MESSAGE UNRELIABLE_DATAGRAM"
)
