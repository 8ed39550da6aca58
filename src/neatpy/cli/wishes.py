"""From the words of a command line to properties, security parameters and framers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from neatpy import (
    Certificate,
    Connection,
    Framer,
    InterfaceType,
    MessageContext,
    MessageFramer,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import DelimiterFramer, LengthPrefixFramer, TypeLengthValueFramer


class Profile(StrEnum):
    """RFC 9622's convenience profiles."""

    RELIABLE_INORDER_STREAM = "reliable-inorder-stream"
    RELIABLE_MESSAGE = "reliable-message"
    UNRELIABLE_DATAGRAM = "unreliable-datagram"


class Framing(StrEnum):
    """The framers that can be asked for."""

    LENGTH = "length"
    TLV = "tlv"
    LINE = "line"


class Wishes:
    """What the options of one command asked for. The methods raise ValueError or TypeError for what cannot be."""

    __slots__ = (
        "alpn", "avoid", "ca", "cert", "framer", "insecure", "interface", "key", "opportunistic", "pin", "prefer",
        "profile", "prohibit", "require", "self_signed", "settings",
    )  # fmt: skip

    def __init__(
        self,
        *,
        profile: Profile,
        require: Sequence[str] | None = None,
        prefer: Sequence[str] | None = None,
        avoid: Sequence[str] | None = None,
        prohibit: Sequence[str] | None = None,
        settings: Sequence[str] | None = None,
        interface: str | None = None,
        framer: Framing | None = None,
        insecure: bool = False,
        opportunistic: bool = False,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        pin: Path | None = None,
        alpn: Sequence[str] | None = None,
        self_signed: Sequence[str] | None = None,
    ) -> None:
        self.profile = profile
        self.require = require or ()
        self.prefer = prefer or ()
        self.avoid = avoid or ()
        self.prohibit = prohibit or ()
        self.settings = settings or ()
        self.interface = interface
        self.framer = framer
        self.insecure = insecure
        self.opportunistic = opportunistic
        self.ca = ca
        self.cert = cert
        self.key = key
        self.pin = pin
        self.alpn = alpn or ()
        self.self_signed = self_signed or ()

    def properties(self) -> TransportProperties:
        """The profile, and then what was said beside it."""
        properties: TransportProperties = getattr(TransportProperties, self.profile.value.replace("-", "_"))()
        for action in ("require", "prefer", "avoid", "prohibit"):
            for wish in getattr(self, action):
                name, _, value = wish.partition("=")
                getattr(properties, action)(name, _interface(value) if value else None)
        if self.interface is not None:
            properties.require("interface", self.interface)
        for setting in self.settings:
            _set(properties, setting)
        return properties

    def security(self, *, listening: bool = False) -> SecurityParameters:
        """The security parameters of a client, or of a Listener."""
        if self.insecure and self.opportunistic:
            raise ValueError("--insecure and --opportunistic contradict each other")
        if self.insecure:
            security = SecurityParameters.disabled()
        elif self.opportunistic:
            security = SecurityParameters.opportunistic()
        else:
            security = SecurityParameters()
        wanted = (
            ("--cert", "server_certificate" if listening else "client_certificate", self._own_certificate()),
            ("--ca", "trusted_certificates", self.ca),
            ("--pin", "pinned_server_certificate", self.pin),
            ("--alpn", "alpn", self.alpn),
        )
        for option, name, value in wanted:
            if value:
                with _naming(option):
                    security.set(name, value)
        return security

    def framers(self) -> list[Framer]:
        """The framer asked for, if any."""
        if self.framer is None:
            return []
        kinds: dict[Framing, type[Framer]] = {
            Framing.LENGTH: LengthPrefixFramer,
            Framing.TLV: TypeLengthValueFramer,
            Framing.LINE: DelimiterFramer,
        }
        return [_with_a_quiet_end(kinds[self.framer])()]

    def _own_certificate(self) -> Certificate | None:
        if self.self_signed:
            if self.cert is not None:
                raise ValueError("--self-signed and --cert contradict each other")
            with _naming("--self-signed"):
                return Certificate.self_signed(*self.self_signed)
        if self.cert is not None:
            with _naming("--cert" if self.key is None else "--cert and --key"):
                return Certificate.from_files(self.cert, self.key)
        if self.key is not None:
            raise ValueError("--key needs --cert")
        return None


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Say in errors which option they are about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{option}: {error}") from error


def _with_a_quiet_end(kind: type[Framer]) -> type[Framer]:
    """A framer like this one, to which the empty Final Message that tells of the end of the input is no Message: the
    peer just sees that there is no more."""

    class QuietEnd(kind):  # type: ignore[valid-type,misc]  # mypy knows no class made of a variable
        """Frames everything but that end."""

        __slots__ = ()

        def new_sent_message(
            self,
            connection: Connection,
            handle: MessageFramer,
            data: bytes | bytearray | memoryview,
            context: MessageContext,
            end_of_message: bool,
        ) -> None:
            """Frame a Message, or part of one."""
            if context.final and end_of_message and not data:
                handle.send(b"", context, True)
            else:
                super().new_sent_message(connection, handle, data, context, end_of_message)

    return QuietEnd


def _interface(value: str) -> str | InterfaceType:
    """The name of an interface, or a type such as ``wifi``."""
    try:
        return InterfaceType(value.lower())
    except ValueError:
        return value


def _set(properties: TransportProperties, setting: str) -> None:
    """Set a property from ``NAME=VALUE``: the first reading of the text that the property takes."""
    name, separator, text = setting.partition("=")
    if not separator:
        raise ValueError(f"--set takes NAME=VALUE, not {setting!r}")
    refusal: Exception | None = None
    for value in _readings(text.strip()):
        try:
            properties.set(name.strip(), value)
        except (ValueError, TypeError) as error:
            refusal = error
        else:
            return
    assert refusal is not None
    raise ValueError(str(refusal)) from refusal


def _readings(text: str) -> Iterator[object]:
    """What a text may mean, the most particular first and the text itself last."""
    words = {
        "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False,
        "none": None, "disabled": None, "inf": math.inf, "unlimited": math.inf,
    }  # fmt: skip
    if text.lower() in words:
        yield words[text.lower()]
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
    yield text
