"""The callback API of NEATPy 1.0 (2020), as a thin layer over the public API of :mod:`neatpy`.

Programs written for it run after ``from neatpy.classic import *``. The layer has no protocol logic: it translates
names, keeps what is called before ``start()`` until an event loop runs, and calls handlers. See "Coming from NEATPy
1.0" in the documentation.
"""

from neatpy.classic.connection import Connection, ConnectionState, MessageDataObject, SendErrorReason
from neatpy.classic.connection_properties import CapacityProfiles, ConnectionProperties, TCPUserTimeout
from neatpy.classic.enumerations import AddressPreference, ServiceLevel, SupportedProtocolStacks
from neatpy.classic.framer import ExampleFramer, Framer, MessageFramer
from neatpy.classic.listener import Listener, ListenErrorReasons
from neatpy.classic.message_context import MessageContext, MessageProperties
from neatpy.classic.preconnection import LocalEndpoint, Preconnection, RemoteEndpoint
from neatpy.classic.security_parameters import Certificate, SecurityParameters
from neatpy.classic.selection_properties import CommunicationDirections, PreferenceLevel, SelectionProperties
from neatpy.classic.transport_properties import TransportProperties, TransportPropertyProfiles
from neatpy.classic.utils import shim_print

__all__ = [
    "AddressPreference", "CapacityProfiles", "Certificate", "CommunicationDirections", "Connection",
    "ConnectionProperties", "ConnectionState", "ExampleFramer", "Framer", "ListenErrorReasons", "Listener",
    "LocalEndpoint", "MessageContext", "MessageDataObject", "MessageFramer", "MessageProperties", "Preconnection",
    "PreferenceLevel", "RemoteEndpoint", "SecurityParameters", "SelectionProperties", "SendErrorReason", "ServiceLevel",
    "SupportedProtocolStacks", "TCPUserTimeout", "TransportProperties", "TransportPropertyProfiles", "shim_print",
]  # fmt: skip
