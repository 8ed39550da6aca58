"""HTTPS and SVCB records as a name server sends them: asked for with dnspython, and followed to real Listeners."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aioquic")
pytest.importorskip("dns")

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rrset

from neatpy import (
    Connection,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
)
from neatpy.establishment.dns_records import ask_service
from neatpy.establishment.service_bindings import Question, ServiceRecord
from neatpy.establishment.service_search import SERVICE_PATIENCE
from pki import Authority

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

HOST = "127.0.0.1"
SITE = "www.example.test"
_ENOUGH = b"enough"


class NameServer:
    """Answers with the records of a zone, in the notation of zone files; or says nothing, or nonsense."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.respond: Callable[[bytes], bytes | None] = self._answer
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))

    def serve(self) -> None:
        """Until told to stop."""
        while True:
            data, address = self.socket.recvfrom(4096)
            if data == _ENOUGH:
                return
            response = self.respond(data)
            if response is not None:
                self.socket.sendto(response, address)

    def stop(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(_ENOUGH, self.socket.getsockname())

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        (question,) = query.question
        name, kind = str(question.name).rstrip("."), question.rdtype.name
        self.asked.append((name, kind))
        owner = name
        for alias in self.records.get((owner, "CNAME"), []):
            response.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", "CNAME", f"{alias}."))
            owner = alias
        records = self.records.get((owner, kind))
        if records:
            response.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", kind, *records))
        return response.to_wire()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """The only name server there is; www.example.test and svc.example.test are on loopback."""
    known = socket.getaddrinfo

    def resolve(host: Any, port: Any, family: int = 0, *more: Any, **others: Any) -> Any:
        if host not in (SITE, "svc.example.test"):
            return known(host, port, family, *more, **others)
        if family == socket.AF_INET6:
            raise socket.gaierror(socket.EAI_NONAME, "no addresses of this family")
        return known(HOST, port, family, *more, **others)

    server = NameServer()
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [HOST]
    resolver.port = server.socket.getsockname()[1]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.stop()
    thread.join(5)
    server.socket.close()
    assert not thread.is_alive()


@asynccontextmanager
async def serving(
    authority: Authority, protocol: str, alpn: str, names: tuple[str, ...] = (SITE,)
) -> AsyncIterator[int]:
    """A Listener of one stack with a certificate for these names, which echoes; its port."""
    security = SecurityParameters(server_certificate=authority.issue(*names), alpn=alpn)
    local = LocalEndpoint(0, address=HOST, protocol=protocol)
    listener: Listener = Preconnection(local=local, security=security).listen()
    await listener
    async with listener:
        serve = asyncio.ensure_future(listener.serve(_echo))
        port = listener.local_endpoints[0].port
        assert port is not None
        yield port
        serve.cancel()
        await asyncio.wait([serve])


async def _echo(connection: Connection) -> None:
    async with connection:
        message = await connection.receive(min_incomplete_length=4)
        await connection.send(message.data)


async def echoed(connection: Connection) -> None:
    await connection.send(b"ping")
    assert bytes(await connection.receive(min_incomplete_length=4)) == b"ping"


def towards(authority: Authority, port: int, *alpn: str) -> Preconnection:
    security = SecurityParameters(trusted_certificates=authority.root, alpn=alpn)
    return Preconnection(remote=RemoteEndpoint(SITE, port, service="https"), security=security)


def nobodys_port() -> int:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        return int(closed.getsockname()[1])


async def test_an_https_record_leads_to_quic_at_another_host_and_port(zone: NameServer) -> None:
    authority = Authority()
    closed = nobodys_port()
    async with serving(authority, "quic", "h3") as port:
        zone.records[f"_{closed}._https.{SITE}", "HTTPS"] = [f"1 svc.example.test. alpn=h3 port={port}"]
        preconnection = towards(authority, closed, "h3", "h2")
        selection = await preconnection.explain()
        first = selection.candidates[0]
        assert (first.stack.name, first.remote.port, first.server_name) == ("quic", port, SITE)
        assert f"an HTTPS record offers h3 at svc.example.test, port {port}" in str(selection)
        async with preconnection.initiate(timeout=5) as connection:
            assert connection.stack == "quic"
            await echoed(connection)
    assert (f"_{closed}._https.{SITE}", "HTTPS") in zone.asked


async def test_the_name_in_a_record_proves_nothing(zone: NameServer) -> None:
    authority = Authority()
    closed = nobodys_port()
    async with serving(authority, "quic", "h3", names=("svc.example.test",)) as port:
        zone.records[f"_{closed}._https.{SITE}", "HTTPS"] = [f"1 svc.example.test. alpn=h3 port={port}"]
        with pytest.raises(Exception, match=SITE):
            await towards(authority, closed, "h3").initiate(timeout=5)


async def test_an_https_record_leads_to_tls_at_another_port(zone: NameServer) -> None:
    authority = Authority()
    closed = nobodys_port()
    async with serving(authority, "tls/tcp", "h2") as port:
        zone.records[f"_{closed}._https.{SITE}", "HTTPS"] = [f"1 {SITE}. alpn=h2 port={port}"]
        async with towards(authority, closed, "h2").initiate(timeout=5) as connection:
            assert connection.stack == "tls/tcp"
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.port == port
            await echoed(connection)


@pytest.mark.parametrize("response", [None, b"", b"nonsense" * 8])
async def test_a_name_server_that_does_not_answer_holds_nothing_up(
    zone: NameServer, response: bytes | None
) -> None:
    authority = Authority()
    zone.respond = lambda data: response
    loop = asyncio.get_running_loop()
    async with serving(authority, "tls/tcp", "h2") as port:
        before = loop.time()
        async with towards(authority, port, "h2").initiate(timeout=5) as connection:
            assert loop.time() - before < SERVICE_PATIENCE
            assert connection.stack == "tls/tcp"
            await echoed(connection)


async def test_every_parameter_of_a_record_is_understood(zone: NameServer) -> None:
    zone.records[SITE, "HTTPS"] = [
        "2 svc.example.test. alpn=h3,h2 no-default-alpn port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1",
        "1 .",
        "3 svc.example.test. mandatory=alpn alpn=h3",
        "4 svc.example.test. mandatory=key667 key667=x",
    ]
    records = await ask_service(Question(SITE, "HTTPS"))
    assert sorted(records) == [
        ServiceRecord(1, SITE),
        ServiceRecord(2, "svc.example.test", 8443, ("h3", "h2"), False, ("2001:db8::1", "192.0.2.1")),
        ServiceRecord(3, "svc.example.test", None, ("h3",)),
    ]


async def test_a_record_with_no_target_is_about_the_host_that_cnames_lead_to(zone: NameServer) -> None:
    zone.records[SITE, "CNAME"] = ["cdn.example.test"]
    zone.records["cdn.example.test", "HTTPS"] = ["1 . alpn=h3"]
    (record,) = await ask_service(Question(SITE, "HTTPS"))
    assert record.target == "cdn.example.test"


async def test_aliases_and_svcb_records_are_understood(zone: NameServer) -> None:
    zone.records[f"_imaps.{SITE}", "SVCB"] = ["0 pool.example.test."]
    zone.records[f"_pop3s.{SITE}", "SVCB"] = ["0 ."]
    assert await ask_service(Question(f"_imaps.{SITE}", "SVCB")) == [ServiceRecord(0, "pool.example.test")]
    assert await ask_service(Question(f"_pop3s.{SITE}", "SVCB")) == [ServiceRecord(0, "")]
