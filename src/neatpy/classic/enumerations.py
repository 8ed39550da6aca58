"""The enumerations of NEATPy 1.0, also those that name properties. The translation says what they mean."""

from enum import Enum

from neatpy import CapacityProfile as CapacityProfiles
from neatpy import Direction as CommunicationDirections

__all__ = [
    "AddressPreference", "CapacityProfiles", "CommunicationDirections", "ConnectionProperties", "ConnectionState",
    "ListenErrorReasons", "MessageProperties", "PreferenceLevel", "SelectionProperties", "SendErrorReason",
    "ServiceLevel", "SupportedProtocolStacks", "TCPUserTimeout", "TransportPropertyProfiles",
]  # fmt: skip

SelectionProperties = Enum(
    "SelectionProperties",
    "RELIABILITY PRESERVE_MSG_BOUNDARIES PER_MSG_RELIABILITY PRESERVE_ORDER ZERO_RTT_MSG MULTISTREAMING "
    "PER_MSG_CHECKSUM_LEN_SEND PER_MSG_CHECKSUM_LEN_RECV CONGESTION_CONTROL INTERFACE PVD LOCAL_ADDRESS_PREFERENCE "
    "MULTIPATH DIRECTION RETRANSMIT_NOTIFY SOFT_ERROR_NOTIFY",
)
"""Most take a ``PreferenceLevel``; ``INTERFACE`` and ``PVD`` pairs such as ``[(PreferenceLevel.REQUIRE, "eth0")]``,
``LOCAL_ADDRESS_PREFERENCE`` an ``AddressPreference``, and ``DIRECTION`` one of ``CommunicationDirections``."""

MessageProperties = Enum(
    "MessageProperties",
    "LIFETIME PRIORITY ORDERED IDEMPOTENT FINAL CORRUPTION_PROTECTION_LENGTH RELIABLE_DATA_TRANSFER "
    "MESSAGE_CAPACITY_PROFILE_OVERRIDE SINGULAR_TRANSMISSION ECN EARLY_DATA RECEIVING_FINAL_MESSAGE",
)
"""``LIFETIME`` is in seconds, and the lower ``PRIORITY`` leaves first. The last three are read-only."""

ConnectionProperties = Enum(
    "ConnectionProperties",
    "RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION "
    "REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING PRIORITY TIMEOUT_FOR_ABORTING_CONNECTION "
    "CONNECTION_GROUP_TRANSMISSION_SCHEDULER MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT "
    "MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION MAXIMUM_MESSAGE_SIZE_ON_SEND "
    "MAXIMUM_MESSAGE_SIZE_ON_RECEIVE CAPACITY_PROFILE BOUNDS_ON_SEND_OR_RECEIVE_RATE USER_TIMEOUT_TCP",
)
"""-1 is "not set" or "unlimited"; times are in seconds, rates in bits per second. Maximum sizes are read-only."""

TCPUserTimeout = Enum("TCPUserTimeout", "ADVERTISED_USER_TIMEOUT USER_TIMEOUT_ENABLED CHANGEABLE")
"""The keys of ``USER_TIMEOUT_TCP``; the first is in seconds, the others are True or False."""

PreferenceLevel = Enum(
    "PreferenceLevel", {"REQUIRE": 2, "PREFER": 1, "IGNORE": 0, "AVOID": -1, "PROHIBIT": -2}
)
"""How much a Selection Property matters."""

ServiceLevel = Enum("ServiceLevel", {"INTRINSIC_SERVICE": 2, "OPTIONAL": 0, "NOT_PROVIDED": -2})
"""How a protocol stack provides a feature."""

ConnectionState = Enum("ConnectionState", "ESTABLISHING ESTABLISHED CLOSING CLOSED")
SupportedProtocolStacks = Enum("SupportedProtocolStacks", "UDP UDPLITE TCP MPTCP SCTP")
AddressPreference = Enum("AddressPreference", "STABLE TEMPORARY")
TransportPropertyProfiles = Enum(
    "TransportPropertyProfiles", "RELIABLE_INORDER_STREAM RELIABLE_MESSAGE UNRELIABLE_DATAGRAM"
)


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
