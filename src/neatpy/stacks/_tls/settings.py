"""The libraries' contexts of one stack, kept for everyone who asks for the same. Knows no TLS library."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks._tls import plan

if TYPE_CHECKING:
    from neatpy.security import SecurityParameters

_S = TypeVar("_S")

CONTEXTS_KEPT = 64


class SettingsCache:
    """Loading the system's roots takes tens of milliseconds, so that a context is kept, and with it a client's
    sessions. The one used last is given up last."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[object, Any] = {}

    def get(
        self,
        security: SecurityParameters,
        listening: bool,
        make: Callable[[SecurityParameters, bool], _S],
    ) -> _S:
        """The context for these parameters. Raises EstablishmentError where they lack something."""
        missing = plan.misconfiguration(security, listening)
        if missing is not None:
            raise EstablishmentError(missing, Reason.INVALID_CONFIGURATION)
        key = (listening, security.mode, tuple(sorted(security.explicit().items())))
        settings: _S | None = self._kept.pop(key, None)
        if settings is None:
            settings = make(security.snapshot(), listening)
            while len(self._kept) >= CONTEXTS_KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = settings
        return settings
