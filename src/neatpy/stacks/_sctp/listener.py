"""SCTP ports that associations are accepted on, by whichever path they come.

Knows the engine and makes associations; who takes them is the path's business (:attr:`Path.accept`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.stacks._sctp import options
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.engine import ENGINE, Attended

if TYPE_CHECKING:
    from neatpy.stacks._sctp.options import Settings

_BACKLOG = 128
_CONN_SIZE = 16


class Listener(Attended):
    """An SCTP port that associations are accepted on. Made by :meth:`open`."""

    __slots__ = ("_engine", "_users", "port")

    def __init__(self, port: int, settings: Settings) -> None:
        engine = ENGINE
        self._engine = engine
        c = engine.library.c
        self.number = 0
        self.sock = options.new_socket(engine.library, settings, options.LARGEST_MTU)
        try:
            name = engine.library.conn_address(0, port)
            options.check(engine.library, c.usrsctp_bind(self.sock, name, _CONN_SIZE))
            options.check(engine.library, c.usrsctp_listen(self.sock, _BACKLOG))
        except BaseException:
            c.usrsctp_close(self.sock)
            raise
        self.port = port
        self._users = 1
        engine.attach(self)

    @classmethod
    def open(cls, port: int, settings: Settings) -> Listener:
        """Listen on a port, 1 to 65535; the path of an association says who takes it, so that whoever opens a port
        that is open shares it, with the settings of the first. Raises OSError."""
        for attended in ENGINE.sockets():
            if isinstance(attended, cls) and attended.port == port:
                attended._users += 1
                return attended
        return cls(port, settings)

    def close(self) -> None:
        """Undo one ``open``. After the last, nothing is accepted; what was accepted lives on."""
        self._users -= 1
        if not self._users:
            self.discard()

    def discard(self) -> None:
        if self.number:
            self._engine.detach(self)
            self.number = 0
            self._engine.library.c.usrsctp_close(self.sock)

    def attend(self) -> None:
        engine = self._engine
        c, memory = engine.library.c, engine.buffers
        while self.number:
            memory.address_size[0] = _CONN_SIZE
            sock = c.usrsctp_accept(self.sock, memory.address, memory.address_size)
            if not sock:
                return
            path = engine.path_of(memory.address.sconn_addr)
            if path is None or path.accept is None:
                options.close_at_once(engine.library, sock)
                continue
            association = Association.adopt(engine, sock, path)
            path.accept(association)
            engine.mark(association)
