"""What programs of 2020 rely on, and what the original got wrong: client and server in a process each."""

from __future__ import annotations

import os
import time
from textwrap import dedent

import pytest

from .programs import BOTH_STACKS, ECHO, Program, run, run_complaining, running

COUNTING_SERVER = """
def new_connection(connection):
    heard = []
    def received(connection, message, context, is_end, error):
        heard.append(message.data.decode())
        connection.receive(received)
    connection.HANDLE_STATE_CLOSED = lambda connection: say("heard " + "".join(heard))
    connection.receive(received)
serve(server(), new_connection)
"""


@BOTH_STACKS
def test_eight_sends_queued_before_ready_arrive_in_order(free_port: int, stack: str) -> None:
    with running(COUNTING_SERVER, free_port, stack) as server:
        assert run(
            """
            preconnection = client()
            connection = preconnection.initiate()
            for number in range(8):
                connection.send(str(number).encode(), lambda connection, error, number=number: say(number, error))
            connection.close()
            preconnection.start()
            """,
            free_port,
            stack,
        ) == [f"{number} None" for number in range(8)]
        assert server.hears() == "heard 01234567"


@BOTH_STACKS
def test_close_right_after_send_delivers(free_port: int, stack: str) -> None:
    counting = """
    total = 0
    def received(connection, message, context, is_end, error):
        global total
        total += message.length
        connection.receive(received)
    def new_connection(connection):
        connection.HANDLE_STATE_CLOSED = lambda connection: say(total)
        connection.receive(received)
    serve(server(), new_connection)
    """
    with running(counting, free_port, stack) as server:
        assert run(
            """
            def ready(connection):
                connection.send(bytes(3_000_000))
                connection.close()
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_READY = ready
            connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
            preconnection.start()
            """,
            free_port,
            stack,
        ) == ["closed"]
        assert server.hears() == "3000000"


@BOTH_STACKS
def test_every_one_of_a_hundred_simultaneous_connections_is_answered(free_port: int, stack: str) -> None:
    with running(ECHO, free_port, stack):
        assert run(
            """
            answers = []
            def received(connection, message, context, is_end, error):
                answers.append(int(message.data))
                if len(answers) == 100:
                    preconnection.stop()
            preconnection = client()
            for number in range(100):
                connection = preconnection.initiate()
                connection.send(b"%d" % number)
                connection.receive(received)
            preconnection.start()
            say(sorted(answers) == list(range(100)))
            """,
            free_port,
            stack,
        ) == ["True"]


def cpu_seconds(process: int) -> float:
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_an_idle_server_with_many_connections_uses_no_cpu(free_port: int) -> None:
    waiting = """
    def ready(connection):
        connection.send(b"x")
        connection.receive(received)
    def received(connection, message, context, is_end, error):
        connection.receive(received)
        answered.append(connection)
        if len(answered) == 100:
            say("connected")
    answered = []
    preconnection = client()
    for _ in range(100):
        preconnection.initiate().HANDLE_STATE_READY = ready
    preconnection.start()
    """
    with running(ECHO, free_port) as server:
        held = Program(waiting, free_port)
        try:
            held.until("connected")
            before = cpu_seconds(server.process.pid)
            time.sleep(1)  # there is nothing to wait for: in this second nothing happens
            assert cpu_seconds(server.process.pid) - before <= 0.02
            held.interrupt()
            held.end()
        finally:
            held.kill()


def test_a_refused_port_fires_the_handler(refused_port: int) -> None:
    assert run(
        """
        preconnection = client()
        connection = preconnection.initiate()
        connection.HANDLE_STATE_READY = lambda connection: say("ready")
        connection.HANDLE_STATE_CONNECTION_ERROR = lambda refused: say("refused", refused is connection)
        preconnection.start()
        """,
        refused_port,
    ) == ["refused True"]


def test_a_refused_port_without_a_handler_is_logged_with_the_reason(refused_port: int) -> None:
    said, complained = run_complaining(
        """
        preconnection = client()
        preconnection.initiate()
        preconnection.start()
        """,
        refused_port,
    )
    assert said == []
    assert "refused" in complained


def test_exceptions_in_handlers_surface_with_a_traceback_and_the_loop_lives_on(free_port: int) -> None:
    with running(ECHO, free_port):
        said, complained = run_complaining(
            """
            def ready(connection):
                connection.send(b"hello", sent)
                connection.receive(received)
                raise ValueError("in the ready handler")
            def sent(connection, error):
                raise ValueError("in the sent handler")
            def received(connection, message, context, is_end, error):
                say("received", message.data)
                connection.close()
                raise ValueError("in the receive handler")
            def closed(connection):
                say("closed")
                raise ValueError("in the closed handler")
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_READY = ready
            connection.HANDLE_STATE_CLOSED = closed
            preconnection.start()
            say("over")
            """,
            free_port,
        )
    assert said == ["received b'hello'", "closed", "over"]
    for handler in ("ready", "sent", "receive", "closed"):
        assert f"ValueError: in the {handler} handler" in complained
    assert complained.count("Traceback") == 4


def test_other_threads_run_meanwhile(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            """
            import threading
            turns = 0
            done = threading.Event()
            def count():
                global turns
                while turns < 1000:
                    turns += 1
                    time.sleep(0)
                done.set()
                preconnection.stop()
            thread = threading.Thread(target=count)
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_READY = lambda connection: thread.start()
            preconnection.start()
            say(turns, done.is_set())
            """,
            free_port,
        ) == ["1000 True"]


def test_start_returns_when_the_peer_has_closed_and_everything_is_read(free_port: int) -> None:
    closing = """
    def new_connection(connection):
        connection.send(b"bye")
        connection.close()
    serve(server(), new_connection)
    """
    with running(closing, free_port):
        assert run(
            """
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
            connection.receive(lambda connection, message, context, is_end, error: say(message.data))
            preconnection.start()
            say("over")
            """,
            free_port,
        ) == ["b'bye'", "closed", "over"]


def test_start_with_nothing_to_do_returns_at_once(free_port: int) -> None:
    assert run("client().start()", free_port) == []


def test_the_peers_close_is_noticed_without_a_receive(free_port: int) -> None:
    silent = """
    def new_connection(connection):
        connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
        say("accepted")
    serve(server(), new_connection)
    """
    closing = """
    preconnection = client()
    preconnection.initiate().HANDLE_STATE_READY = lambda connection: connection.close()
    preconnection.start()
    """
    with running(silent, free_port) as server:
        run(closing, free_port)
        assert server.until("closed") == ["accepted", "closed"]


def test_what_sent_handlers_go_on_to_send_after_the_peers_final_message_arrives(free_port: int) -> None:
    stepwise = """
    def new_connection(connection):
        left = 20
        def sent(connection, error):
            nonlocal left
            left -= 1
            if left:
                connection.send(bytes(100_000), sent)
        connection.receive(lambda connection, *_: connection.send(bytes(100_000), sent))
    serve(server(), new_connection)
    """
    asking = """
    total = 0
    def received(connection, message, context, is_end, error):
        global total
        total += message.length
        connection.receive(received)
    preconnection = client()
    connection = preconnection.initiate()
    last = MessageContext()
    last.add(MessageProperties.FINAL, True)
    connection.send(b"all, please", None, last)
    connection.receive(received)
    preconnection.start()
    say(total)
    """
    with running(stepwise, free_port):
        assert run(asking, free_port) == ["2000000"]


def test_stop_ends_a_server_in_order(free_port: int) -> None:
    stopping = """
    def received(connection, message, context, is_end, error):
        connection.send(b"the last word")
        connection.stop()
    preconnection = server()
    listener = preconnection.listen()
    listener.HANDLE_STATE_LISTENING = lambda: say("listening")
    listener.HANDLE_STATE_STOPPED = lambda: say("stopped")
    listener.HANDLE_CONNECTION_RECEIVED = lambda connection: connection.receive(received)
    preconnection.start()
    say("over")
    """
    with running(stopping, free_port, ends=True) as server:
        assert run(
            """
            preconnection = client()
            connection = preconnection.initiate()
            connection.send(b"stop")
            connection.receive(lambda connection, message, *_: say(message.data.decode()))
            preconnection.start()
            """,
            free_port,
        ) == ["the last word"]
        assert server.until("over") == ["stopped", "over"]


def test_a_stopped_listener_lets_accepted_connections_live_on(free_port: int) -> None:
    once = """
    def new_connection(connection):
        listener.stop()
        connection.receive(received)
    def received(connection, message, context, is_end, error):
        connection.send(message.data)
        connection.receive(received)
    preconnection = server()
    listener = preconnection.listen()
    listener.HANDLE_STATE_LISTENING = lambda: say("listening")
    listener.HANDLE_CONNECTION_RECEIVED = new_connection
    preconnection.start()
    say("over")
    """
    with running(once, free_port, ends=True) as server:
        assert run(
            """
            def received(connection, message, context, is_end, error):
                say(message.data.decode())
                connection.close()
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_READY = lambda connection: connection.send(b"hello")
            connection.receive(received)
            preconnection.start()
            """,
            free_port,
        ) == ["hello"]
        server.until("over")


@BOTH_STACKS
def test_ctrl_c_ends_both_sides_cleanly(free_port: int, stack: str) -> None:
    waiting = """
    preconnection = client()
    connection = preconnection.initiate()
    connection.HANDLE_STATE_READY = lambda connection: say("ready")
    connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
    preconnection.start()
    say("over")
    """
    with running(ECHO, free_port, stack):
        program = Program(waiting, free_port, stack)
        try:
            program.until("ready")
            program.interrupt()
            said, complained = program.end()
        finally:
            program.kill()
    assert (said, complained) == (["closed", "NEATPy error: interrupted", "over"], "")


def test_sys_exit_in_a_handler_ends_the_program(free_port: int) -> None:
    with running(ECHO, free_port):
        program = Program(
            """
            preconnection = client()
            preconnection.initiate().HANDLE_STATE_READY = lambda connection: sys.exit(3)
            preconnection.start()
            """,
            free_port,
        )
        try:
            assert program.process.wait(10) == 3
        finally:
            program.kill()


@BOTH_STACKS
def test_a_second_preconnection_in_the_same_process_works(free_port: int, stack: str) -> None:
    with running(ECHO, free_port, stack):
        assert run(
            """
            def received(connection, message, context, is_end, error):
                say(message.data.decode(), connection.transport_stack.name.lower() == STACK)
                connection.close()
            first, second = client(), client()
            for preconnection, data in ((first, b"one"), (second, b"two"), (first, b"three")):
                connection = preconnection.initiate()
                connection.send(data)
                connection.receive(received)
                preconnection.start()
            """,
            free_port,
            stack,
        ) == ["one True", "two True", "three True"]


def test_preconnections_can_run_in_threads_of_their_own(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            """
            import threading
            answers = []
            def received(connection, message, context, is_end, error):
                answers.append(message.data)
                connection.close()
            def talk(data):
                preconnection = client()
                connection = preconnection.initiate()
                connection.send(data)
                connection.receive(received)
                preconnection.start()
            threads = [threading.Thread(target=talk, args=(b"%d" % number,)) for number in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            say(sorted(answers) == [b"0", b"1", b"2", b"3"])
            """,
            free_port,
        ) == ["True"]


def test_what_a_handler_initiates_runs_at_once_and_start_is_refused_there(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            """
            def received(connection, message, context, is_end, error):
                say(message.data.decode())
                connection.close()
            def closed(connection):
                other = client()
                second = other.initiate()
                second.send(b"from the closed handler")
                second.receive(received)
                try:
                    other.start()
                except RuntimeError as error:
                    say(error)
            preconnection = client()
            connection = preconnection.initiate()
            connection.HANDLE_STATE_CLOSED = closed
            connection.HANDLE_STATE_READY = lambda connection: connection.close()
            preconnection.start()
            """,
            free_port,
        ) == [
            "start() inside a running event loop: what is initiated there runs already",
            "from the closed handler",
        ]


def test_in_a_loop_of_the_program_everything_runs_at_once_and_stop_ends_it(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            """
            import asyncio
            async def main():
                closed = asyncio.get_running_loop().create_future()
                def received(connection, message, *_):
                    say(message.data.decode())
                    preconnection.stop()
                preconnection = client()
                for number in range(2):
                    connection = preconnection.initiate()
                    connection.send(b"hello")
                    connection.HANDLE_STATE_CLOSED = lambda connection: say("closed")
                connection.receive(received)
                connection.HANDLE_STATE_CLOSED = closed.set_result
                say(await closed is connection)
            asyncio.run(main())
            """,
            free_port,
        ) == ["hello", "closed", "True"]


def test_initiate_gives_up_after_its_timeout(free_port: int) -> None:
    assert run(
        """
        remote = RemoteEndpoint()
        remote.with_address("192.0.2.1")  # reserved for documentation: nobody answers
        remote.with_port(PORT)
        preconnection = Preconnection(remote_endpoint=remote, transport_properties=wanted())
        begun = time.monotonic()
        connection = preconnection.initiate(0.3)
        connection.HANDLE_STATE_CONNECTION_ERROR = lambda connection: say(time.monotonic() - begun < 3)
        preconnection.start()
        """,
        free_port,
    ) == ["True"]


def test_properties_that_no_stack_meets_are_unfulfilled(free_port: int) -> None:
    impossible = """
    properties = TransportProperties()
    properties.prohibit(SelectionProperties.RELIABILITY)
    properties.require(SelectionProperties.CONGESTION_CONTROL)
    """
    assert run(
        dedent(impossible)
        + dedent(
            """
            for action in (client, server):
                preconnection = action(properties, unfulfilled_handler=lambda: say("unfulfilled"))
                preconnection.initiate() if action is client else preconnection.listen()
                preconnection.start()
            """
        ),
        free_port,
    ) == ["unfulfilled", "unfulfilled"]
    assert run(
        dedent(impossible)
        + dedent(
            """
            import neatpy
            preconnection = client(properties)
            preconnection.initiate()
            try:
                preconnection.start()
            except neatpy.EstablishmentError as error:
                say(error.reason.name)
            """
        ),
        free_port,
    ) == ["NO_CANDIDATES"]


def test_a_port_that_is_taken_fires_the_listen_error(free_port: int) -> None:
    with running(ECHO, free_port):
        assert run(
            """
            preconnection = server()
            listener = preconnection.listen()
            listener.HANDLE_STATE_LISTEN_ERROR = lambda reason: say(reason.name)
            preconnection.start()
            """,
            free_port,
        ) == ["UNRESOLVED_LOCAL_ENDPOINT"]


def test_security_encrypts_without_verifying_anybody_and_verifies_when_asked(free_port: int) -> None:
    pytest.importorskip("cryptography")
    secure = """
    def received(connection, message, context, is_end, error):
        connection.send(message.data)
    serve(server(security_needed=True), lambda connection: connection.receive(received))
    """
    asking = """
    def received(connection, message, context, is_end, error):
        say(message.data.decode())
        connection.close()
    for security in (True, SecurityParameters()):
        preconnection = client(security_needed=security)
        connection = preconnection.initiate()
        connection.send(b"hidden")
        connection.receive(received)
        connection.HANDLE_STATE_CONNECTION_ERROR = lambda connection: say("refused")
        preconnection.start()
    """
    with running(secure, free_port):
        assert run(asking, free_port) == ["hidden", "refused"]
