"""A framer of your own: one method for each direction. This one speaks netstrings, ``5:hello,``.

Run it: python examples/custom_framer.py
"""

from __future__ import annotations

import asyncio

import neatpy
from neatpy import Connection, Framer, MessageContext, MessageFramer, Preconnection


class Netstrings(Framer):
    """No state here: one framer serves all Connections. What belongs to one goes to ``handle.state``."""

    def new_sent_message(
        self,
        connection: Connection,
        handle: MessageFramer,
        data: bytes | bytearray | memoryview,
        context: MessageContext,
        end_of_message: bool,
    ) -> None:
        handle.send(b"%d:%b," % (len(data), bytes(data)), context, end_of_message)

    def handle_received_data(self, connection: Connection, handle: MessageFramer) -> None:
        # Without enough data, parse() does not return: this method is called again when more is there.
        digits, colon, _ = handle.parse(2, 10)[0].partition(b":")
        if not colon:
            digits, colon, _ = handle.parse(10, 10)[0].partition(b":")  # a longer length, not all there yet
        if not colon or not digits.isdigit():
            raise ValueError(f"{digits!r} is no length")  # ends the Connection with DEFRAMING_FAILED
        handle.advance_receive_cursor(len(digits) + 1)
        handle.deliver_and_advance_receive_cursor(None, int(digits))  # also bytes that are still to come
        handle.advance_receive_cursor(1)  # the comma


async def main() -> None:
    plain = neatpy.SecurityParameters.disabled()
    wanted = neatpy.TransportProperties.reliable_message()
    server = Preconnection(neatpy.LocalEndpoint(0, address="127.0.0.1"), None, wanted, plain, [Netstrings()])
    async with server.listen() as listener:
        remote = neatpy.RemoteEndpoint("127.0.0.1", listener.local_endpoints[0].port)
        async with Preconnection(None, remote, wanted, plain, [Netstrings()]).initiate(timeout=5) as client:
            for word in (b"one", b"", b"three"):
                client.send(word)
            async with await asyncio.wait_for(listener.accept(), 5) as accepted:
                print([bytes(await accepted.receive()) for _ in range(3)])


neatpy.run(main())
