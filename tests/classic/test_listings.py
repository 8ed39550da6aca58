"""The programs of the thesis that NEATPy 1.0 was written for, client and server in a process each."""

from __future__ import annotations

from textwrap import dedent

import pytest

from .programs import BOTH_STACKS, ECHO, run, running

MINIMAL_CLIENT = """
def received(connection, message, context, is_end, error):
    shim_print(f"Got message {message.length}: {message.data.decode()}", level="msg")
    connection.close()
def ready(connection):
    connection.send(b"Hello server", None)
    connection.receive(received)
properties = TransportProperties()
properties.add(SelectionProperties.RELIABILITY, PreferenceLevel.REQUIRE)
properties.prefer(SelectionProperties.PRESERVE_MSG_BOUNDARIES)
preconnection = client(properties)
connection = preconnection.initiate()
connection.HANDLE_STATE_READY = ready
preconnection.start()
"""


@BOTH_STACKS
def test_the_minimal_client_reaches_either_kind_of_server(free_port: int, stack: str) -> None:
    with running(ECHO, free_port, stack):
        assert run(MINIMAL_CLIENT, free_port, stack) == ["NEATPy: Got message 12: Hello server"]


@BOTH_STACKS
def test_hello_server_is_answered_by_hello_from_server(free_port: int, stack: str) -> None:
    hello_server = """
    def received(connection, message, context, is_end, error):
        say("got", message.data.decode())
        connection.send(b"Hello from server", lambda connection: say("sent"))
    def new_connection(connection):
        connection.receive(received)
    serve(server(), new_connection)
    """
    hello_client = """
    def received(connection, message, context, is_end, error):
        say("got", message.data.decode(), is_end, error)
        connection.close()
    def ready(connection):
        connection.send(b"Hello server", lambda connection: say("sent"))
        connection.receive(received)
    preconnection = client()
    preconnection.initiate().HANDLE_STATE_READY = ready
    preconnection.start()
    """
    with running(hello_server, free_port, stack) as server:
        assert run(hello_client, free_port, stack) == ["sent", "got Hello from server None None"]
        assert server.until("sent") == ["got Hello server", "sent"]


FIVE_BYTES_CLIENT = """
class FiveBytesFramer(Framer):
    def start(self, connection): pass
    def stop(self, connection): pass
    def new_sent_message(self, connection, message_data, message_context, sent_handler, is_end_of_message):
        connection.message_framer.send(
            connection, b"HEADER" + message_data, message_context, sent_handler, is_end_of_message
        )
    def handle_received_data(self, connection):
        header, context, is_end = connection.message_framer.parse(connection, 6, 6)
        assert header == b"HEADER"
        connection.message_framer.advance_receive_cursor(connection, 6)
        connection.message_framer.deliver_and_advance_receive_cursor(connection, context, 5, True)

heard = []
def received(connection, message, context, is_end, error):
    heard.append(message.data.decode())
    if len(heard) == 2:
        say(*sorted(heard))
        connection.stop()
def clone_failed(connection):
    say("the clone failed")
def first_ready(connection):
    connection.receive(received)
    connection.send(b"FIVE!", None)
    clone = connection.clone(clone_failed)
    clone.HANDLE_STATE_READY = second_ready
def second_ready(connection):
    connection.receive(received)
    connection.send(b"Clone", None)

preconnection = client()
preconnection.add_framer(FiveBytesFramer())
preconnection.initiate().HANDLE_STATE_READY = first_ready
preconnection.start()
"""


@BOTH_STACKS
def test_a_framer_of_six_byte_headers_and_a_clone_work_with_an_echo_server_that_knows_of_none(
    free_port: int, stack: str
) -> None:
    with running(ECHO, free_port, stack):
        assert run(FIVE_BYTES_CLIENT, free_port, stack) == ["Clone FIVE!"]


TLV = """
import struct
SIZE = 70_000
class TlvFramer(Framer):
    def start(self, connection): pass
    def stop(self, connection): pass
    def new_sent_message(self, connection, message_data, message_context, sent_handler, is_end_of_message):
        header = struct.pack("!HI", 7, len(message_data))
        connection.message_framer.send(
            connection, header + message_data, message_context, sent_handler, is_end_of_message
        )
    def handle_received_data(self, connection):
        header, context, _ = connection.message_framer.parse(connection, 6, 6)
        kind, length = struct.unpack("!HI", header)
        context.add("kind", kind, self)
        connection.message_framer.advance_receive_cursor(connection, 6)
        connection.message_framer.deliver_and_advance_receive_cursor(connection, context, length, True)
framer = TlvFramer()
"""


@BOTH_STACKS
@pytest.mark.parametrize("count", [1, 50, 100])
def test_messages_of_70_kb_with_type_and_length_before_them_arrive_whole(
    free_port: int, stack: str, count: int
) -> None:
    tlv_server = """
    count = 0
    def received(connection, message, context, is_end, error):
        global count
        number = int.from_bytes(message.data[:4], "big")
        assert (message.length, number, context.get("kind", framer)) == (SIZE, count, 7), (message.length, number)
        count += 1
        connection.send(message.data[:4])
        connection.receive(received)
    preconnection = server()
    preconnection.add_framer(framer)
    serve(preconnection, lambda connection: connection.receive(received))
    """
    tlv_client = f"""
    def received(connection, message, context, is_end, error):
        if int.from_bytes(message.data, "big") == {count} - 1:
            say("all answered")
            connection.close()
        else:
            connection.receive(received)
    def ready(connection):
        for number in range({count}):
            connection.send(number.to_bytes(4, "big") + bytes(SIZE - 4))
        connection.receive(received)
    preconnection = client()
    preconnection.add_framer(framer)
    preconnection.initiate().HANDLE_STATE_READY = ready
    preconnection.start()
    """
    with running(TLV + dedent(tlv_server), free_port, stack):
        assert run(TLV + dedent(tlv_client), free_port, stack) == ["all answered"]


@BOTH_STACKS
def test_fifteen_megabytes_and_then_a_clone_with_one_more_from_the_sent_handler(
    free_port: int, stack: str
) -> None:
    counting_server = """
    def new_connection(connection):
        total = 0
        def received(connection, message, context, is_end, error):
            nonlocal total
            total += message.length
            if total in (1_000_000, 15_000_000):
                say(total)
                connection.send(b"thanks")
            connection.receive(received)
        connection.receive(received)
    serve(server(), new_connection)
    """
    sending_client = """
    thanks = 0
    def received(connection, message, context, is_end, error):
        global thanks
        thanks += 1
        if thanks == 2:
            connection.stop()
    def sent(connection, error):
        clone = connection.clone(lambda connection: say("the clone failed"))
        clone.HANDLE_STATE_READY = clone_ready
    def clone_ready(connection):
        connection.send(bytes(1_000_000))
        connection.receive(received)
    def ready(connection):
        connection.send(bytes(15_000_000), sent)
        connection.receive(received)
    preconnection = client()
    preconnection.initiate().HANDLE_STATE_READY = ready
    preconnection.start()
    say("thanks", thanks)
    """
    with running(counting_server, free_port, stack) as server:
        assert run(sending_client, free_port, stack) == ["thanks 2"]
        assert sorted([server.hears(), server.hears()]) == ["1000000", "15000000"]
