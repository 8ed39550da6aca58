"""Connection Properties, in a module of 1.0's name."""

from neatpy.classic.enumerations import CapacityProfiles as CapacityProfiles
from neatpy.classic.enumerations import ConnectionProperties as ConnectionProperties
from neatpy.classic.enumerations import TCPUserTimeout as TCPUserTimeout
