"""The errors of the API: what they carry, also out of their process."""

from __future__ import annotations

import builtins
import copy
import pickle
from collections.abc import Callable

import pytest

from neatpy import (
    CloneError,
    ConnectionError,
    EstablishmentError,
    Expired,
    MessageContext,
    PropertyError,
    Reason,
    ReceiveError,
    SendError,
    TransportServicesError,
)
from neatpy.errors import Attempted
from neatpy.system.icmp import IcmpError


def pickled(error: TransportServicesError) -> TransportServicesError:
    again: TransportServicesError = pickle.loads(pickle.dumps(error))
    return again


@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "error",
    [
        EstablishmentError("nobody there", Reason.TIMEOUT),
        SendError("too large", Reason.MESSAGE_TOO_LARGE, MessageContext(msg_priority=1)),
        Expired("too late"),
        ReceiveError("it is over", Reason.CONNECTION_CLOSED),
        CloneError("no more streams", Reason.NOT_CLONEABLE),
        ConnectionError("it broke", Reason.CONNECTION_ABORTED),
        PropertyError("not that one"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_leave_its_process_without_its_context(
    error: TransportServicesError, again: Callable[[TransportServicesError], TransportServicesError]
) -> None:
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args, other.reason) == (str(error), error.args, error.reason)
    assert getattr(other, "context", None) is None


def test_the_attempts_go_along() -> None:
    refused = OSError(111, "refused")
    told = IcmpError(111, origin=2, kind=3, code=3, info=0, offender="192.0.2.1")
    error = EstablishmentError(
        "nobody there", Reason.ESTABLISHMENT_FAILED, [Attempted("tcp", refused), Attempted("udp", told)]
    )
    again = pickled(error)
    assert str(again) == str(error)
    assert isinstance(again, EstablishmentError)
    assert [str(attempt.error) for attempt in again.attempts] == [str(refused), str(told)]


def test_a_connection_error_is_a_builtin_one_too() -> None:
    assert isinstance(pickled(ConnectionError("it broke", Reason.TIMEOUT)), builtins.ConnectionError)
