"""Selection Properties, in a module of 1.0's name."""

from neatpy.classic.enumerations import CommunicationDirections as CommunicationDirections
from neatpy.classic.enumerations import PreferenceLevel as PreferenceLevel
from neatpy.classic.enumerations import SelectionProperties as SelectionProperties
