"""Secrets and qlog of QUIC connections, written where the environment asks for them and nowhere else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from api.loopback import HOST, port_of, until
from neatpy import Certificate, LocalEndpoint, Preconnection, RemoteEndpoint, SecurityParameters
from neatpy.stacks.registry import stacks

pytestmark = pytest.mark.skipif(not stacks()["quic"].available().available, reason="aioquic is not installed")

CERTIFICATE = Certificate.self_signed("localhost", HOST)


async def talk() -> None:
    """One connection, from its beginning to its end on both sides."""
    listener = Preconnection(
        LocalEndpoint(0, address=HOST, protocol="quic"),
        security=SecurityParameters(server_certificate=CERTIFICATE),
    ).listen()
    async with listener:
        client = Preconnection(
            remote=RemoteEndpoint("localhost", port_of(listener), address=HOST, protocol="quic"),
            security=SecurityParameters(trusted_certificates=CERTIFICATE),
        )
        async with client.initiate(timeout=5) as connection:
            server = await listener.accept()
            await connection.send(b"question")
            assert bytes(await server.receive(min_incomplete_length=8)) == b"question"
            await asyncio.gather(server.close(), connection.close())


async def test_secrets_go_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secrets"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    await talk()
    labels = {line.split()[0] for line in path.read_text().splitlines()}
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= labels
    assert path.stat().st_mode & 0o077 == 0


async def test_a_place_that_cannot_be_written_ends_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))
    monkeypatch.setenv("QLOGDIR", str(tmp_path / "not there"))
    await talk()


async def test_each_side_of_a_connection_has_a_qlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLOGDIR", str(tmp_path))
    await talk()
    await until(lambda: list(tmp_path.glob("*.qlog")))  # when nothing of it is to be answered any more
    events = [
        event["name"]
        for path in tmp_path.glob("*.qlog")
        for event in json.loads(path.read_text())["traces"][0]["events"]
    ]
    assert "transport:packet_sent" in events
