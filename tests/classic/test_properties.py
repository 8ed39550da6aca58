"""Properties of 2020 and what they mean now; what acts on sockets is read back from them."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import pytest

import neatpy
from neatpy.classic import (
    AddressPreference,
    CapacityProfiles,
    CommunicationDirections,
    ConnectionProperties,
    ExampleFramer,
    LocalEndpoint,
    MessageContext,
    MessageProperties,
    Preconnection,
    PreferenceLevel,
    RemoteEndpoint,
    SelectionProperties,
    TCPUserTimeout,
    TransportProperties,
    TransportPropertyProfiles,
)

from .programs import BOTH_STACKS, ECHO, run, run_complaining, running

S, M, C = SelectionProperties, MessageProperties, ConnectionProperties


def test_the_defaults_are_those_of_2020() -> None:
    properties = TransportProperties()
    selection = properties.selection_properties
    required = {name for name, value in selection.items() if value is PreferenceLevel.REQUIRE}
    preferred = {name for name, value in selection.items() if value is PreferenceLevel.PREFER}
    assert required == {S.RELIABILITY, S.PRESERVE_ORDER, S.CONGESTION_CONTROL}
    assert preferred == {S.PRESERVE_MSG_BOUNDARIES, S.MULTISTREAMING, S.MULTIPATH}
    assert properties.message_properties[M.LIFETIME] == math.inf
    assert properties.message_properties[M.PRIORITY] == 100
    assert properties.connection_properties[C.BOUNDS_ON_SEND_OR_RECEIVE_RATE] == (-1, -1)
    assert properties.connection_properties[C.USER_TIMEOUT_TCP] == {
        TCPUserTimeout.ADVERTISED_USER_TIMEOUT: 300,
        TCPUserTimeout.USER_TIMEOUT_ENABLED: False,
        TCPUserTimeout.CHANGEABLE: True,
    }


def test_the_defaults_mean_that_boundaries_are_preferred_and_several_paths_used() -> None:
    assert TransportProperties().translated() == neatpy.TransportProperties(
        preserve_msg_boundaries="prefer", multipath="active"
    )


@pytest.mark.parametrize(
    ("profile", "wanted"),
    [
        (
            TransportPropertyProfiles.RELIABLE_INORDER_STREAM,
            neatpy.TransportProperties.reliable_inorder_stream().prohibit("preserve_msg_boundaries"),
        ),
        (TransportPropertyProfiles.RELIABLE_MESSAGE, neatpy.TransportProperties.reliable_message()),
        (
            TransportPropertyProfiles.UNRELIABLE_DATAGRAM,
            neatpy.TransportProperties.unreliable_datagram()
            .prohibit("reliability")
            .no_preference("preserve_order"),
        ),
    ],
)
def test_profiles_mean_what_they_meant(
    profile: TransportPropertyProfiles, wanted: neatpy.TransportProperties
) -> None:
    assert TransportProperties(profile).translated() == wanted.set("multipath", "active")


@pytest.mark.parametrize(
    ("prop", "value", "name", "now"),
    [
        (S.RELIABILITY, PreferenceLevel.IGNORE, "reliability", neatpy.Preference.NO_PREFERENCE),
        (S.ZERO_RTT_MSG, PreferenceLevel.AVOID, "zero_rtt_msg", neatpy.Preference.AVOID),
        (
            S.PER_MSG_CHECKSUM_LEN_SEND,
            PreferenceLevel.REQUIRE,
            "full_checksum_send",
            neatpy.Preference.PROHIBIT,
        ),
        (
            S.INTERFACE,
            [(PreferenceLevel.PROHIBIT, "eth9")],
            "interface",
            {(neatpy.Preference.PROHIBIT, "eth9")},
        ),
        (
            S.LOCAL_ADDRESS_PREFERENCE,
            AddressPreference.STABLE,
            "use_temporary_local_address",
            neatpy.Preference.AVOID,
        ),
        (S.MULTIPATH, PreferenceLevel.PROHIBIT, "multipath", neatpy.Multipath.DISABLED),
        (
            S.DIRECTION,
            CommunicationDirections.UNIDIRECTIONAL_SEND,
            "direction",
            neatpy.Direction.UNIDIRECTIONAL_SEND,
        ),
        (M.LIFETIME, 10, "msg_lifetime", 10),
        (M.SINGULAR_TRANSMISSION, True, "no_segmentation", True),
        (M.CORRUPTION_PROTECTION_LENGTH, 8, "msg_checksum_len", 8),
        (C.TIMEOUT_FOR_ABORTING_CONNECTION, 30, "conn_timeout", 30),
        (
            C.CONNECTION_GROUP_TRANSMISSION_SCHEDULER,
            "Round robin",
            "conn_scheduler",
            neatpy.Scheduler.ROUND_ROBIN,
        ),
        (C.BOUNDS_ON_SEND_OR_RECEIVE_RATE, (-1, 5000), "max_recv_rate", 5000),
        (C.CAPACITY_PROFILE, CapacityProfiles.SCAVENGER, "conn_capacity_profile", 1),
        (
            C.USER_TIMEOUT_TCP,
            {TCPUserTimeout.USER_TIMEOUT_ENABLED: True},
            "tcp.user_timeout_value",
            300,
        ),
    ],
)
def test_each_property_becomes_todays(prop: Any, value: object, name: str, now: object) -> None:
    properties = TransportProperties()
    properties.add(prop, value)
    assert properties.translated().get(name) == now


@pytest.mark.parametrize(
    ("prop", "value"),
    [
        ("reliability", PreferenceLevel.REQUIRE),
        (S.RELIABILITY, "require"),
        (M.PRIORITY, -1),
        (M.ECN, 1),
        (C.MAXIMUM_MESSAGE_SIZE_ON_SEND, 10),
        (C.BOUNDS_ON_SEND_OR_RECEIVE_RATE, 10),
        (C.USER_TIMEOUT_TCP, {"nonsense": 1}),
        (S.DIRECTION, "sideways"),
    ],
)
def test_what_is_no_property_or_value_is_logged_and_ignored(
    prop: Any, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    properties = TransportProperties()
    with caplog.at_level(logging.WARNING):
        properties.add(prop, value)
    assert len(caplog.records) == 1
    assert properties.translated() == TransportProperties().translated()


def test_a_default_can_be_taken_back() -> None:
    properties = TransportProperties(TransportPropertyProfiles.UNRELIABLE_DATAGRAM)
    for prop in (S.RELIABILITY, S.PRESERVE_ORDER, S.CONGESTION_CONTROL, S.PRESERVE_MSG_BOUNDARIES):
        properties.default(prop)
    assert properties.selection_properties == TransportProperties().selection_properties


def test_a_property_that_the_rfc_has_dropped_is_kept_and_said_to_do_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    properties = TransportProperties()
    properties.require(S.RETRANSMIT_NOTIFY)
    assert "does nothing" in caplog.text
    assert properties.selection_properties[S.RETRANSMIT_NOTIFY] is PreferenceLevel.REQUIRE


def test_a_context_keeps_properties_and_what_framers_know(caplog: pytest.LogCaptureFixture) -> None:
    context, framer = MessageContext(), ExampleFramer()
    for prop in M:
        default = TransportProperties().message_properties[prop]
        assert context.get(prop) == default or (default is None and not context.get(prop))
    context.add(M.LIFETIME, 5)
    context.add("kind", 7, framer)
    context.add("kind", 7)
    context.add(M.RECEIVING_FINAL_MESSAGE, True)
    assert len(caplog.records) == 2
    assert (context.get(M.LIFETIME), context.get("kind", framer)) == (5, 7)
    assert context.get("other", framer) is context.get("kind") is context.get_remote_endpoint() is None


@pytest.mark.parametrize("action", ["initiate", "listen"])
def test_an_action_without_its_endpoint_is_refused_at_once(action: str) -> None:
    local, remote = LocalEndpoint(), RemoteEndpoint()
    given: dict[str, Any] = {"local_endpoint": local} if action == "initiate" else {"remote_endpoint": remote}
    with pytest.raises(ValueError, match="needs a"):
        getattr(Preconnection(**given), action)()


def test_an_endpoint_that_can_be_none_is_refused_at_once() -> None:
    remote = RemoteEndpoint()
    remote.with_hostname("two words")
    with pytest.raises(ValueError, match="host name"):
        Preconnection(remote_endpoint=remote).initiate()


@pytest.mark.parametrize("lengths", [(-1,), (None, 0), (1, -5.0)])
def test_a_receive_of_less_than_a_byte_is_refused_at_once(lengths: tuple[Any, ...]) -> None:
    remote = RemoteEndpoint()
    remote.with_hostname("localhost")
    with pytest.raises(ValueError, match="at least 1 byte"):
        Preconnection(remote_endpoint=remote).initiate().receive(None, *lengths)


# On real Connections

SOCKET_OPTION = """
import os, socket, stat
def option(level, number):
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as own:
                    if own.family == socket.AF_INET and own.getpeername():
                        found.append(own.getsockopt(level, number))
        except OSError:
            pass
    return found
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc and socket options")


@on_linux
def test_user_timeouts_and_capacity_profiles_reach_the_socket(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            SOCKET_OPTION
            + """
def ready(connection):
    say(option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), option(socket.IPPROTO_IP, socket.IP_TOS))
    connection.set_property(ConnectionProperties.CAPACITY_PROFILE, CapacityProfiles.LOW_LATENCY_INTERACTIVE)
    connection.set_property(
        ConnectionProperties.USER_TIMEOUT_TCP, {TCPUserTimeout.ADVERTISED_USER_TIMEOUT: 9}
    )
    say(option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), option(socket.IPPROTO_IP, socket.IP_TOS))
    found = connection.get_properties()["props"].connection_properties
    say(found[ConnectionProperties.CAPACITY_PROFILE].name, *found[ConnectionProperties.USER_TIMEOUT_TCP].values())
    connection.close()
properties = wanted()
properties.add(ConnectionProperties.CAPACITY_PROFILE, CapacityProfiles.SCAVENGER)
properties.add(ConnectionProperties.USER_TIMEOUT_TCP, {
    TCPUserTimeout.USER_TIMEOUT_ENABLED: True, TCPUserTimeout.ADVERTISED_USER_TIMEOUT: 7,
})
preconnection = client(properties)
preconnection.initiate().HANDLE_STATE_READY = ready
preconnection.start()
""",
            free_port,
        ) == [f"[7000] [{1 << 2}]", f"[9000] [{36 << 2}]", "LOW_LATENCY_INTERACTIVE 9 True True"]


@BOTH_STACKS
def test_the_properties_of_a_connection_can_be_asked_for_and_set(free_port: int, stack: str) -> None:
    with running(ECHO, free_port, stack):
        assert run(
            """
            import logging
            logging.basicConfig(stream=sys.stdout, format="%(message)s")
            def shown(connection):
                found = connection.get_properties()
                say(found["state"].name, found["send"], found["receive"], found["props"].connection_properties[
                    ConnectionProperties.TIMEOUT_FOR_ABORTING_CONNECTION])
            def ready(connection):
                connection.set_property(ConnectionProperties.TIMEOUT_FOR_ABORTING_CONNECTION, 40)
                connection.set_property(ConnectionProperties.MAXIMUM_MESSAGE_SIZE_ON_SEND, 40)
                connection.set_property("nonsense", 40)
                shown(connection)
                connection.close()
            preconnection = client()
            connection = preconnection.initiate()
            shown(connection)
            connection.HANDLE_STATE_READY = ready
            connection.HANDLE_STATE_CLOSED = shown
            preconnection.start()
            """,
            free_port,
            stack,
        ) == [
            "ESTABLISHING False False -1",
            "MAXIMUM_MESSAGE_SIZE_ON_SEND was not set: it is read-only",
            "'nonsense' is no Connection Property and was ignored",
            "ESTABLISHED True True 40.0",
            "CLOSED False False 40.0",
        ]


def test_a_connection_keeps_a_property_that_the_rfc_has_dropped(free_port: int) -> None:
    with running(ECHO, free_port):
        said, complained = run_complaining(
            """
            THRESHOLD = ConnectionProperties.RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION
            def ready(connection):
                say(connection.get_properties()["props"].connection_properties[THRESHOLD])
                connection.close()
            properties = wanted()
            properties.add(THRESHOLD, 5)
            preconnection = client(properties)
            preconnection.initiate().HANDLE_STATE_READY = ready
            preconnection.start()
            """,
            free_port,
        )
    assert said == ["5"]
    assert "does nothing" in complained


@BOTH_STACKS
def test_clones_share_connection_properties_but_their_priority(free_port: int, stack: str) -> None:
    with running(ECHO, free_port, stack):
        assert run(
            """
            def clone_ready(clone):
                connection.set_property(ConnectionProperties.TIMEOUT_FOR_ABORTING_CONNECTION, 40)
                connection.set_property(ConnectionProperties.PRIORITY, 7)
                for one in (connection, clone):
                    found = one.get_properties()["props"].connection_properties
                    say(found[ConnectionProperties.TIMEOUT_FOR_ABORTING_CONNECTION],
                        found[ConnectionProperties.PRIORITY])
                def received(clone, message, context, is_end, error):
                    say(context.get_local_endpoint().port == own_port)
                    preconnection.stop()
                def first_received(connection, message, context, is_end, error):
                    global own_port
                    own_port = context.get_local_endpoint().port
                    clone.receive(received)
                clone.send(b"over the clone")
                connection.send(b"over the first")
                connection.receive(first_received)
            def ready(connection):
                clone = connection.clone(lambda clone: say("the clone failed"))
                clone.HANDLE_STATE_READY = clone_ready
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_READY = ready
            preconnection.start()
            """,
            free_port,
            stack,
        ) == ["40.0 7", "40.0 100", str(stack == "sctp")]


def test_a_clone_that_fails_tells_its_handler(free_port: int) -> None:
    with running(
        """
        def new_connection(connection):
            listener.stop()
            connection.receive(lambda connection, *_: connection.send(b"no more"))
        preconnection = server()
        listener = preconnection.listen()
        listener.HANDLE_STATE_LISTENING = lambda: say("listening")
        listener.HANDLE_CONNECTION_RECEIVED = new_connection
        preconnection.start()
        """,
        free_port,
        ends=True,
    ):
        assert run(
            """
            def received(connection, *_):
                connection.clone(lambda clone, error: (say("failed", error.reason.name), connection.close()))
            preconnection = client()
            connection = preconnection.initiate()
            connection.send(b"x")
            connection.receive(received)
            preconnection.start()
            """,
            free_port,
        ) == ["failed ESTABLISHMENT_FAILED"]


def test_the_connection_limit_holds_further_connections_back_until_it_is_reset(free_port: int) -> None:
    limited = """
    def received(connection, message, context, is_end, error):
        connection.send(message.data)
        if message.data == b"second":
            listener.reset_connection_limit()
        connection.receive(received)
    preconnection = server()
    listener = preconnection.listen()
    listener.set_new_connection_limit(2)
    listener.HANDLE_STATE_LISTENING = lambda: say("listening")
    listener.HANDLE_CONNECTION_RECEIVED = lambda connection: connection.receive(received)
    preconnection.start()
    """
    with running(limited, free_port):
        assert run(
            """
            def received(connection, message, context, is_end, error):
                answers.append(message.data.decode())
                if answers == ["first"]:
                    connections[1].send(b"second")  # the third has been waiting all the time
                if len(answers) == 3:
                    say(*answers)
                    preconnection.stop()
            def ready(connection):
                connection.receive(received)
                if len(connections) == 3:
                    connections[2].send(b"third")
                    connections[0].send(b"first")
                else:
                    connect()
            def connect():
                connection = preconnection.initiate()
                connection.HANDLE_STATE_READY = ready
                connections.append(connection)
            answers, connections = [], []
            preconnection = client()
            connect()
            preconnection.start()
            """,
            free_port,
        ) == ["first second third"]
