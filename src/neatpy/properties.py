"""Transport Properties: what an application wants of its Connections (RFC 9622 section 6.2). Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neatpy.enumerations import Preference, PropertyKind
from neatpy.errors import PropertyError
from neatpy.property_table import (
    PROPERTIES,
    ConnectionProperties,
    MessageProperties,
    Property,
    SelectionProperties,
    find_property,
)

__all__ = ["PROPERTIES", "Property", "PropertyKind", "TransportProperties", "find_property"]

_SETS = ("interface", "pvd")


class TransportProperties(SelectionProperties, ConnectionProperties, MessageProperties):
    """Every Selection, Connection and Message Property, each a typed attribute in snake_case.

    Properties that are not set have the RFC's default. Names are accepted in snake_case or in the RFC's spelling, in
    any case; the namespace of ``tcp.user_timeout_value`` also as in the attribute ``tcp_user_timeout_value``, without
    the underscore that begins ``_neatpy``. Enumerations are accepted as members, or as strings by a member's name in
    any case, its words parted by underscores, spaces, hyphens or slashes (``"Low Latency/Interactive"``). Raises
    PropertyError for unknown names, TypeError for values of the wrong type and ValueError for values out of range, each
    saying what is allowed.
    """

    __slots__ = ()

    def __init__(self, **properties: Any) -> None:
        self._values = None
        for name, value in properties.items():
            self.set(name, value)

    @classmethod
    def reliable_inorder_stream(cls) -> TransportProperties:
        """A reliable, ordered stream with congestion control, as of TCP (RFC 9622 appendix A.2)."""
        return cls(
            reliability=Preference.REQUIRE,
            preserve_order=Preference.REQUIRE,
            congestion_control=Preference.REQUIRE,
            preserve_msg_boundaries=Preference.NO_PREFERENCE,
        )

    @classmethod
    def reliable_message(cls) -> TransportProperties:
        """Reliable, ordered Messages with congestion control, as of SCTP (RFC 9622 appendix A.2)."""
        return cls(
            reliability=Preference.REQUIRE,
            preserve_order=Preference.REQUIRE,
            congestion_control=Preference.REQUIRE,
            preserve_msg_boundaries=Preference.REQUIRE,
        )

    @classmethod
    def unreliable_datagram(cls) -> TransportProperties:
        """Messages that may be lost, reordered or doubled, as of UDP (RFC 9622 appendix A.2)."""
        return cls(
            reliability=Preference.AVOID,
            preserve_order=Preference.AVOID,
            congestion_control=Preference.NO_PREFERENCE,
            preserve_msg_boundaries=Preference.REQUIRE,
            safely_replayable=True,
        )

    def set(self, name: str, value: object) -> TransportProperties:
        """Set any property by name."""
        row = find_property(name)
        row.__set__(self, value)
        return self

    def get(self, name: str) -> Any:
        """The value of any property by name."""
        return find_property(name).__get__(self, type(self))

    def require(self, name: str, value: Any = None) -> TransportProperties:
        """Only what has the feature will do; ``value`` names the interface or domain."""
        return self._want(name, Preference.REQUIRE, value)

    def prefer(self, name: str, value: Any = None) -> TransportProperties:
        """What has the feature is better; ``value`` names the interface or domain."""
        return self._want(name, Preference.PREFER, value)

    def no_preference(self, name: str, value: Any = None) -> TransportProperties:
        """The feature does not matter; ``value`` names the interface or domain."""
        return self._want(name, Preference.NO_PREFERENCE, value)

    def avoid(self, name: str, value: Any = None) -> TransportProperties:
        """What does not have the feature is better; ``value`` names the interface or domain."""
        return self._want(name, Preference.AVOID, value)

    def prohibit(self, name: str, value: Any = None) -> TransportProperties:
        """Nothing that has the feature will do; ``value`` names the interface or domain."""
        return self._want(name, Preference.PROHIBIT, value)

    def snapshot(self) -> TransportProperties:
        """An independent copy."""
        copy = TransportProperties()
        if self._values is not None:
            copy._values = self._values.copy()
        return copy

    __copy__ = snapshot

    def __deepcopy__(self, memo: dict[int, object]) -> TransportProperties:
        return self.snapshot()

    def __eq__(self, other: object) -> bool:
        """Equal are those with equal values, set or not."""
        if not isinstance(other, TransportProperties):
            return NotImplemented
        names: Mapping[str, object] = {**self.explicit(), **other.explicit()}
        return all(self.get(name) == other.get(name) for name in names)

    __hash__ = None  # type: ignore[assignment]  # they change

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_spelled(value)}" for name, value in self.explicit().items())
        return f"TransportProperties({shown})"

    def _want(self, name: str, preference: Preference, value: Any) -> TransportProperties:
        row = find_property(name)
        if row.name in _SETS:
            if value is None:
                raise TypeError(
                    f"{row.name} needs to know which: {preference.name.lower()}({row.name!r}, ...)"
                )
            row.check(((preference, value),))
            chosen = self.get(row.name)
            if (_OPPOSITES.get(preference), value) in chosen:
                raise ValueError(f"{row.name} {value!r} cannot be both required and prohibited")
            return self.set(row.name, {pair for pair in chosen if pair[1] != value} | {(preference, value)})
        if not (isinstance(row.default, Preference) or row.name == "use_temporary_local_address"):
            raise PropertyError(f"{row.name} is not a preference: it takes {row.allowed}")
        if value is not None:
            raise TypeError(f"{row.name} takes no further value: {preference.name.lower()}({row.name!r})")
        return self.set(row.name, preference)


_OPPOSITES = {Preference.REQUIRE: Preference.PROHIBIT, Preference.PROHIBIT: Preference.REQUIRE}


def _spelled(value: object) -> str:
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else repr(value)
