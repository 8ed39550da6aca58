"""socat and plain sockets as peers, over TCP and UDP, IPv4 and IPv6, both ways."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.loopback import (
    HOST,
    PLAIN,
    datagrams,
    framed,
    going_to,
    length_framed,
    listening_on,
    port_of,
    stream,
)
from interop.meetings import connected, families, received
from interop.programs import Program, running
from neatpy import Preconnection

needs_socat = pytest.mark.needs_program("socat")


def socat_address(protocol: str, host: str, port: int) -> str:
    """socat's spelling of a place to connect to."""
    return f"{protocol}6:[{host}]:{port}" if ":" in host else f"{protocol}4:{host}:{port}"


@asynccontextmanager
async def echoing_socat(protocol: str, host: str) -> AsyncIterator[tuple[Program, int]]:
    """socat that sends everything back, and its port."""
    family, bind = ("6", f"[{host}]") if ":" in host else ("4", host)
    async with running(
        "socat", "-d", "-d", f"{protocol}{family}-LISTEN:0,bind={bind},fork", "PIPE"
    ) as program:
        port = (await program.says(r"listening on .*:(\d+)"))[1]
        yield program, int(port)


@needs_socat
@families
async def test_socat_echoes_a_stream(host: str) -> None:
    async with echoing_socat("TCP", host) as (_, port), connected(going_to(port, host=host)) as connection:
        data = bytes(range(256)) * 1000
        connection.send(data, final=True)
        message = await connection.receive()
        assert (message.data, message.end_of_message) == (data, True)
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.address == host
        await connection.close()


@needs_socat
@families
async def test_socat_echoes_datagrams(host: str) -> None:
    async with (
        echoing_socat("UDP", host) as (_, port),
        connected(going_to(port, datagrams(), host=host)) as connection,
    ):
        for data in (b"one", b"another", bytes(1200)):
            connection.send(data)
            assert (await connection.receive()).data == data


@needs_socat
@families
async def test_socat_connects_to_a_listener(host: str) -> None:
    async with listening_on(address=host).listen() as listener:
        address = socat_address("TCP", host, port_of(listener))
        async with running("socat", "-t", "5", "-", address) as program:
            connection = await listener.accept()
            program.types(b"from socat")
            program.hangs_up()
            assert (await connection.receive()).data == b"from socat"
            connection.send(b"to socat")
            await connection.close()
            assert await program.ends() == 0
            assert program.output == "to socat"


@needs_socat
@families
async def test_socat_sends_datagrams_to_a_listener(host: str) -> None:
    async with listening_on(datagrams(), address=host).listen() as listener:
        address = socat_address("UDP", host, port_of(listener))
        async with running("socat", "-t", "5", "-", address) as program:
            program.types(b"from socat")
            connection = await listener.accept()
            assert (await connection.receive()).data == b"from socat"
            connection.send(b"to socat")
            await program.says("to socat")
            await connection.close()


@families
async def test_a_plain_server_exchanges_framed_messages(host: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(7):  # in pieces that cut across the frames
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, host, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        async with connected(going_to(port, host=host, framers=length_framed())) as connection:
            sent = [b"", b"a", bytes(1000)]
            for data in sent:
                connection.send(data)
            assert [(await connection.receive()).data for _ in sent] == sent
            await connection.close()
    finally:
        server.close()
        await server.wait_closed()


@families
async def test_a_plain_client_exchanges_framed_messages(host: str) -> None:
    async with listening_on(address=host, framers=length_framed()).listen() as listener:
        reader, writer = await asyncio.open_connection(host, port_of(listener))
        writer.write(framed(b"question"))
        connection = await listener.accept()
        assert (await connection.receive()).data == b"question"
        connection.send(b"answer")
        assert await reader.readexactly(len(framed(b"answer"))) == framed(b"answer")
        writer.write_eof()
        assert [message async for message in connection] == []
        await connection.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@families
async def test_plain_datagrams_come_and_go(host: str) -> None:
    loop = asyncio.get_running_loop()
    async with listening_on(datagrams(), address=host).listen() as listener:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.setblocking(False)
            peer.connect((host, port_of(listener)))
            peer.send(b"question")
            connection = await listener.accept()
            assert (await connection.receive()).data == b"question"
            connection.send(b"answer")
            assert await asyncio.wait_for(loop.sock_recv(peer, 100), 5) == b"answer"
            await connection.close()


async def test_a_listener_without_an_address_serves_both_families() -> None:
    async with Preconnection(properties=stream(), security=PLAIN).listen() as listener:
        for host in (HOST, "::1"):
            async with connected(going_to(port_of(listener), host=host)) as connection:
                accepted = await listener.accept()
                connection.send(b"hello")
                assert await received(accepted, 5) == b"hello"
                accepted.abort()
