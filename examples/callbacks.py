"""The callback API of NEATPy 1.0: a server and its client, with a framer and a clone, as one wrote them in 2020.

New are the import line and ``listener.port``. Run it: python examples/callbacks.py
"""

from typing import Any

from neatpy.classic import *

wanted = TransportProperties()
wanted.require(SelectionProperties.RELIABILITY)
wanted.prefer(SelectionProperties.PRESERVE_MSG_BOUNDARIES)


# The server


def answer(connection: Connection, message: Any, context: Any, is_end: Any, error: Any) -> None:
    connection.send(message.data.upper(), lambda connection, error: shim_print(f"answered, error: {error}"))
    connection.receive(answer)


local = LocalEndpoint()
local.with_address("127.0.0.1")
local.with_port(0)
server = Preconnection(local_endpoint=local, transport_properties=wanted)
server.add_framer(ExampleFramer())
listener = server.listen()
listener.HANDLE_CONNECTION_RECEIVED = lambda connection: connection.receive(answer)


# The client, which connects as soon as the server listens


def received(connection: Connection, message: Any, context: Any, is_end: Any, error: Any) -> None:
    shim_print(message.data.decode(), level="msg")
    if message.data == b"HELLO":
        connection.clone().HANDLE_STATE_READY = lambda clone: talk(clone, b"hello from a clone")
    else:
        connection.stop()  # everything ends, and start() returns


def talk(connection: Connection, data: bytes) -> None:
    connection.send(data)
    connection.receive(received)


def connect() -> None:
    remote = RemoteEndpoint()
    remote.with_address("127.0.0.1")
    remote.with_port(listener.port)
    client = Preconnection(remote_endpoint=remote, transport_properties=wanted)
    client.add_framer(ExampleFramer())
    client.initiate().HANDLE_STATE_READY = lambda connection: talk(connection, b"hello")


listener.HANDLE_STATE_LISTENING = connect
server.start()
