"""A QUIC peer on aiopquic (picoquic), as a program of its own: it runs on whatever Python has that package.

quic_peer.py serve PORT CERTIFICATE    echoes each stream to its end
quic_peer.py ask PORT ROOT SIZE        opens three streams, sends SIZE bytes on each, and compares the echo
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import defaultdict
from typing import Any

from aiopquic.asyncio import QuicConnectionProtocol, connect
from aiopquic.asyncio import serve as listen
from aiopquic.quic.configuration import QuicConfiguration
from aiopquic.quic.events import StreamDataReceived

CHUNK = 65536


class Echoing(QuicConnectionProtocol):  # type: ignore[misc]
    """Sends back what comes, one piece after the other as there is room for them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._pieces: asyncio.Queue[tuple[int, bytes, bool]] = asyncio.Queue()
        self._answering = asyncio.ensure_future(self._answer())

    def quic_event_received(self, event: Any) -> None:
        """Keep it until it can be sent."""
        if isinstance(event, StreamDataReceived):
            self._pieces.put_nowait((event.stream_id, bytes(event.data), event.end_stream))

    async def _answer(self) -> None:
        while True:
            stream, data, ended = await self._pieces.get()
            await send(self._quic, stream, data, ended)


async def send(quic: Any, stream: int, data: bytes, ended: bool) -> None:
    """All of it, in pieces for which there is room."""
    for start in range(0, len(data), CHUNK):
        await quic.send_stream_data_drained(stream, data[start : start + CHUNK])
    if ended:
        quic.send_stream_data(stream, b"", True)


class Asking(QuicConnectionProtocol):  # type: ignore[misc]
    """Keeps what comes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.data: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.ended: asyncio.Queue[int] = asyncio.Queue()

    def quic_event_received(self, event: Any) -> None:
        """Keep it."""
        if isinstance(event, StreamDataReceived):
            self.data[event.stream_id] += bytes(event.data)
            if event.end_stream:
                self.ended.put_nowait(event.stream_id)


async def serve(port: str, certificate: str) -> None:
    """Echo until killed."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    configuration.load_cert_chain(certificate, certificate)
    await listen("127.0.0.1", int(port), configuration=configuration, create_protocol=Echoing)
    print("listening", flush=True)
    await asyncio.Event().wait()


async def ask(port: str, root: str, size: str) -> None:
    """Compare what comes back."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["echo"], server_name="peer.example")
    configuration.load_verify_locations(root)
    async with connect("127.0.0.1", int(port), configuration=configuration, create_protocol=Asking) as client:
        for number in range(3):
            data = random.Random(number).randbytes(int(size))
            stream = client._quic.get_next_available_stream_id()
            await send(client._quic, stream, data, True)
            await client.ended.get()
            print("echoed" if client.data[stream] == data else "other bytes", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[2:]) if sys.argv[1] == "serve" else ask(*sys.argv[2:]))
