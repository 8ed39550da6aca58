"""Messages with properties, in parts, in batches and with framers: client and server in a process each."""

from __future__ import annotations

from textwrap import dedent

import pytest

from .programs import BOTH_STACKS, ECHO, run, running

LINES = """
class LineFramer(Framer):
    def start(self, connection): pass
    def stop(self, connection): pass
    def new_sent_message(self, connection, message_data, message_context, sent_handler, is_end_of_message):
        ending = b"\\n" if is_end_of_message else b""
        connection.message_framer.send(
            connection, message_data + ending, message_context, sent_handler, is_end_of_message
        )
    def handle_received_data(self, connection):
        data, context, is_end = connection.message_framer.parse(connection, 1, float("inf"))
        end = data.find(b"\\n")
        if end < 0:
            connection.message_framer.parse(connection, len(data) + 1, float("inf"))
        connection.message_framer.deliver(connection, context, data[:end], True)
        connection.message_framer.advance_receive_cursor(connection, end + 1)
def framed(preconnection):
    preconnection.add_framer(LineFramer())
    return preconnection
def context(**properties):
    result = MessageContext()
    for name, value in properties.items():
        result.add(MessageProperties[name], value)
    return result
"""

TELLING = LINES + dedent(
    """
    def new_connection(connection):
        def received(connection, message, context, is_end, error):
            say(message.data.decode(), is_end, error)
            connection.receive(received)
        connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
        connection.receive(received)
    serve(framed(server()), new_connection)
    """
)


def line_client(source: str) -> str:
    return LINES + dedent(source)


@BOTH_STACKS
def test_a_final_message_goes_last_and_a_later_send_is_refused(free_port: int, stack: str) -> None:
    with running(TELLING, free_port, stack) as server:
        assert run(
            line_client(
                """
                def ready(connection):
                    def queue():
                        connection.send(b"last", None, context(FINAL=True))
                        connection.send(b"late", lambda connection, error: say("late", error.name))
                    connection.send(b"first")
                    connection.batch(queue)
                preconnection = framed(client())
                connection = preconnection.initiate()
                connection.HANDLE_STATE_READY = ready
                connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
                preconnection.start()
                """
            ),
            free_port,
            stack,
        ) == ["late FINAL_MESSAGE_PASSED", "closed"]
        assert server.until("closed") == ["first None None", "last None None", "closed"]


@BOTH_STACKS
def test_lower_priority_values_leave_first_and_final_last(free_port: int, stack: str) -> None:
    with running(TELLING, free_port, stack) as server:
        run(
            line_client(
                """
                preconnection = framed(client())
                connection = preconnection.initiate()
                connection.send(b"slow", None, context(PRIORITY=200))
                connection.send(b"usual")
                connection.send(b"urgent", None, context(PRIORITY=5))
                connection.send(b"end", None, context(FINAL=True, PRIORITY=1))
                preconnection.start()
                """
            ),
            free_port,
            stack,
        )
        assert [line.split()[0] for line in server.until("closed")] == [
            "urgent",
            "usual",
            "slow",
            "end",
            "closed",
        ]


def test_a_message_whose_lifetime_ends_is_discarded_and_reported(free_port: int) -> None:
    slow = """
    total = 0
    def received(connection, message, context, is_end, error):
        global total
        total += message.length
        say("all") if total == 20_000_000 else connection.receive(received)
    def new_connection(connection):
        go = connection.preconnection
        connection.receive(lambda connection, *_: None, 1, 1)
        holder.append(connection)
        if len(holder) == 2:
            holder[0].receive(received)  # the second Connection says that the first has waited long enough
    holder, total = [], 1
    serve(server(), new_connection)
    """
    with running(slow, free_port) as server:
        assert run(
            line_client(
                """
                def sent(name):
                    def handler(connection, error):
                        say(name, None if error is None else error.name)
                        if name == "short-lived":
                            other = preconnection.initiate()
                            other.HANDLE_STATE_READY = lambda other: connection.close()
                            other.send(b"go on")
                            connection.HANDLE_STATE_CLOSED = lambda connection: other.close()
                    return handler
                def ready(connection):
                    connection.send(bytes(20_000_000), sent("large"))
                    connection.send(b"late", sent("short-lived"), context(LIFETIME=0.2))
                preconnection = client()
                preconnection.initiate().HANDLE_STATE_READY = ready
                preconnection.start()
                """
            ),
            free_port,
        ) == ["short-lived MESSAGE_EXPIRED", "large None"]
        server.until("all")


@BOTH_STACKS
def test_the_sends_of_a_batch_arrive_in_order(free_port: int, stack: str) -> None:
    with running(TELLING, free_port, stack) as server:
        run(
            line_client(
                """
                def ready(connection):
                    connection.batch(lambda: [connection.send(b"%d" % number) for number in range(100)])
                    connection.close()
                preconnection = framed(client())
                preconnection.initiate().HANDLE_STATE_READY = ready
                preconnection.start()
                """
            ),
            free_port,
            stack,
        )
        assert server.until("closed") == [*(f"{number} None None" for number in range(100)), "closed"]


@BOTH_STACKS
@pytest.mark.parametrize("shared", ["context()", "None"])
def test_the_parts_of_a_partial_send_are_one_message(free_port: int, stack: str, shared: str) -> None:
    with running(TELLING, free_port, stack) as server:
        assert run(
            line_client(
                f"""
                def ready(connection):
                    same = {shared}
                    told = lambda connection, error: say(error)
                    connection.send(b"one ", told, same, False)
                    connection.send(b"two ", told, same, False)
                    connection.send(b"three", told, same, True)
                    connection.send(b"another")
                    connection.close()
                preconnection = framed(client())
                preconnection.initiate().HANDLE_STATE_READY = ready
                preconnection.start()
                """
            ),
            free_port,
            stack,
        ) == ["None", "None", "None"]
        assert server.until("closed") == ["one two three None None", "another None None", "closed"]


def test_a_message_above_the_maximum_comes_in_parts_of_which_the_last_says_so(free_port: int) -> None:
    parts = LINES + dedent(
        """
        def new_connection(connection):
            def received(connection, message, context, is_end, error):
                say(message.data.decode(), is_end)
                connection.receive(received, max_length=4)
            connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
            connection.receive(received, max_length=4)
        serve(framed(server()), new_connection)
        """
    )
    with running(parts, free_port) as server:
        run(
            line_client(
                """
                preconnection = framed(client())
                connection = preconnection.initiate()
                connection.send(b"abcdefghij")
                connection.send(b"xyz")
                connection.close()
                preconnection.start()
                """
            ),
            free_port,
        )
        assert server.until("closed") == ["abcd False", "efgh False", "ij True", "xyz None", "closed"]


def test_a_stream_without_a_framer_answers_with_what_is_there(free_port: int) -> None:
    bounds = """
    def new_connection(connection):
        def first(connection, message, context, is_end, error):
            say(message.data.decode(), is_end)
            connection.send(b"more")
            connection.receive(second, 6)
        def second(connection, message, context, is_end, error):
            say(message.data.decode(), is_end)
        connection.receive(first, None, 3)
    serve(server(), new_connection)
    """
    with running(bounds, free_port) as server:
        run(
            """
            def received(connection, message, context, is_end, error):
                connection.send(b"def")
                connection.close()
            preconnection = client()
            connection = preconnection.initiate()
            connection.send(b"abcABC")
            connection.receive(received)
            preconnection.start()
            """,
            free_port,
        )
        assert [server.hears(), server.hears()] == ["abc False", "ABCdef None"]


def test_closing_hands_what_is_there_to_a_receive_that_waits_for_more(free_port: int) -> None:
    closing = """
    def new_connection(connection):
        def received(connection, message, context, is_end, error):
            say(message.data.decode())
        def nudged(other, *_):
            connection.close()
        if holder:
            connection.receive(nudged)
            holder.clear()
            connection.preconnection.first.close()
        else:
            holder.append(connection)
            connection.preconnection.first = connection
            connection.receive(received, 1000)
    holder = []
    serve(server(), new_connection)
    """
    with running(closing, free_port) as server:
        run(
            """
            preconnection = client()
            connection = preconnection.initiate()
            def sent(connection, error):
                second = preconnection.initiate()
                second.HANDLE_STATE_READY = lambda second: second.close()
            connection.send(b"not a thousand", sent)
            preconnection.start()
            """,
            free_port,
        )
        assert server.hears() == "not a thousand"


def test_closing_hands_what_is_there_to_a_receive_of_the_same_handler(free_port: int) -> None:
    closing = """
    def first(connection, message, context, is_end, error):
        say(message.data.decode())
        connection.receive(lambda connection, message, *_: say(message.data.decode()), 1000)
        connection.close()
    serve(server(), lambda connection: connection.receive(first, None, 3))
    """
    with running(closing, free_port) as server:
        run(
            """
            preconnection = client()
            preconnection.initiate().send(b"abcdef")
            preconnection.start()
            """,
            free_port,
        )
        assert [server.hears(), server.hears()] == ["abc", "def"]


def test_what_came_while_nobody_received_is_handed_out_in_the_pieces_asked_for(free_port: int) -> None:
    late = """
    waiting = []
    def received(connection, message, context, is_end, error):
        say(message.data.decode(), is_end)
        connection.receive(received, None, 4)
    def new_connection(connection):
        connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
        waiting.append(connection)
        if len(waiting) == 2:
            waiting[0].receive(received, None, 4)  # by now all its data, and their end, are there
    serve(server(), new_connection)
    """
    sending = """
    preconnection = client()
    connection = preconnection.initiate()
    connection.send(b"abcdefghij")
    connection.close()
    preconnection.start()
    preconnection.initiate().HANDLE_STATE_READY = lambda connection: connection.close()
    preconnection.start()
    """
    with running(late, free_port) as server:
        run(sending, free_port)
        heard = [*server.until("closed"), *server.until("closed")]
        assert [line for line in heard if line != "closed"] == ["abcd False", "efgh False", "ij None"]


def test_handlers_may_be_none(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            """
            preconnection = client()
            connection = preconnection.initiate_with_send(b"first", None)
            connection.send(b"second", None)
            connection.receive(None)
            connection.HANDLE_STATE_READY = lambda connection: connection.close()
            connection.clone(None).close()
            preconnection.start()
            say("over")
            """,
            free_port,
        ) == ["over"]


@BOTH_STACKS
def test_the_end_of_the_peer_hands_what_is_there_to_a_receive_that_waits_for_more(
    free_port: int, stack: str
) -> None:
    waiting = """
    def new_connection(connection):
        connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
        connection.receive(lambda connection, message, *_: say(message.data.decode()), 1000)
    serve(server(), new_connection)
    """
    with running(waiting, free_port, stack) as server:
        run(
            """
            preconnection = client()
            connection = preconnection.initiate()
            connection.send(b"short")
            connection.close()
            preconnection.start()
            """,
            free_port,
            stack,
        )
        assert server.until("closed") == ["short", "closed"]


@BOTH_STACKS
def test_initiate_with_send_sends_a_first_message(free_port: int, stack: str) -> None:
    with running(ECHO, free_port, stack):
        assert run(
            """
            def received(connection, message, context, is_end, error):
                say(message.data.decode())
                connection.close()
            context = MessageContext()
            context.add(MessageProperties.IDEMPOTENT, True)
            preconnection = client()
            connection = preconnection.initiate_with_send(
                b"first", lambda connection, error: say("sent", error), context
            )
            connection.receive(received)
            preconnection.start()
            """,
            free_port,
            stack,
        ) == ["sent None", "first"]


def test_datagrams_go_both_ways_and_large_or_unfit_ones_are_refused(free_port: int) -> None:
    with running(ECHO, free_port, "udp"):
        said = run(
            """
            def received(connection, message, context, is_end, error):
                say(message.data.decode(), connection.transport_stack.name)
                connection.close()
            def told(connection, error):
                say(error.name)
            def ready(connection):
                connection.send(bytes(70_000), told)
                once = MessageContext()
                once.add(MessageProperties.IDEMPOTENT, False)
                connection.send(b"x", told, once)
                connection.send(b"a datagram")
                connection.receive(received)
            preconnection = client()
            preconnection.initiate().HANDLE_STATE_READY = ready
            preconnection.start()
            """,
            free_port,
            "udp",
        )
        assert sorted(said) == ["INCONSISTENT_PROPERTIES_PASSED", "MESSAGE_TOO_LARGE", "a datagram UDP"]


def test_a_send_after_close_is_refused_and_a_broken_connection_tells_the_receives(free_port: int) -> None:
    aborting = """
    serve(server(), lambda connection: connection.receive(lambda connection, *_: connection.abort()))
    """
    with running(aborting, free_port):
        said = run(
            """
            def received(connection, message, context, is_end, error):
                say("received", message.length, error.reason.name)
            def broken(connection):
                say("broken", connection.get_properties()["state"].name)
                connection.send(b"x", lambda connection, error: say(error.name))
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_CONNECTION_ERROR = broken
            connection.receive(received)
            connection.send(b"abort, please")
            preconnection.start()
            connection = preconnection.initiate()
            connection.close()
            connection.send(b"x", lambda connection, error: say(error.name))
            preconnection.start()
            """,
            free_port,
        )
    # Whether the receive or the Connection hears of it first depends on how soon after its beginning it breaks.
    said.remove("received 0 CONNECTION_ABORTED")
    assert said == ["broken CLOSED", "FAILURE_UNDERLYING_STACK", "CONNECTION_CLOSING"]


# Framers


@BOTH_STACKS
def test_the_example_framer_keeps_boundaries(free_port: int, stack: str) -> None:
    with_lengths = """
    def received(connection, message, context, is_end, error):
        connection.send(message.data)
        connection.receive(received)
    preconnection = server()
    preconnection.add_framer(ExampleFramer())
    serve(preconnection, lambda connection: connection.receive(received))
    """
    with running(with_lengths, free_port, stack):
        assert run(
            """
            answers = []
            def received(connection, message, context, is_end, error):
                answers.append((message.length, is_end))
                connection.close() if len(answers) == 3 else connection.receive(received)
            preconnection = client()
            preconnection.add_framer(ExampleFramer())
            connection = preconnection.initiate()
            for size in (1, 100_000, 70):
                connection.send(bytes(size))
            connection.receive(received)
            preconnection.start()
            say(answers)
            """,
            free_port,
            stack,
        ) == ["[(1, None), (100000, None), (70, None)]"]


def test_framers_stack_shake_hands_and_say_goodbye(free_port: int) -> None:
    layered = LINES + dedent(
        """
        class Polite(Framer):
            def start(self, connection):
                connection.message_framer.send(connection, b"hello\\n", None, None, True)
                return False
            def stop(self, connection):
                connection.message_framer.send(connection, b"goodbye\\n", None, None, True)
            def new_sent_message(self, connection, message_data, message_context, sent_handler, is_end_of_message):
                connection.message_framer.send(
                    connection, message_data, message_context, sent_handler, is_end_of_message
                )
            def handle_received_data(self, connection):
                data, context, _ = connection.message_framer.parse(connection, 6, float("inf"))
                if data[:6] == b"hello\\n":
                    say("greeted")
                    connection.message_framer.advance_receive_cursor(connection, 6)
                    connection.message_framer.make_connection_ready(connection)
                elif data[-8:] == b"goodbye\\n":
                    say("farewell")
                    connection.message_framer.deliver(connection, context, data[:-8], True)
                    connection.message_framer.advance_receive_cursor(connection, len(data))
                else:
                    connection.message_framer.deliver_and_advance_receive_cursor(
                        connection, context, len(data), True
                    )
        def polite(preconnection):
            preconnection.add_framer(Polite())
            preconnection.add_framer(LineFramer())
            return preconnection
        """
    )
    answering = layered + dedent(
        """
        def received(connection, message, context, is_end, error):
            say(message.data.decode())
            connection.receive(received)
        serve(polite(server()), lambda connection: connection.receive(received))
        """
    )
    with running(answering, free_port) as server:
        assert run(
            layered
            + dedent(
                """
                preconnection = polite(client())
                connection = preconnection.initiate()
                connection.HANDLE_STATE_READY = lambda connection: say("ready")
                connection.send(b"between")
                connection.close()
                preconnection.start()
                """
            ),
            free_port,
        ) == ["greeted", "ready"]
        assert sorted([server.hears(), server.hears(), server.hears()]) == ["between", "farewell", "greeted"]


def test_a_framer_can_fail_the_connection(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            line_client(
                """
                class Unwilling(LineFramer):
                    def start(self, connection):
                        connection.message_framer.fail_connection(connection, "this peer will not do")
                preconnection = client()
                preconnection.add_framer(Unwilling())
                connection = preconnection.initiate()
                connection.HANDLE_STATE_CONNECTION_ERROR = lambda connection: say("failed")
                preconnection.start()
                """
            ),
            free_port,
        ) == ["failed"]
