"""SRV, SVCB and HTTPS records, asked for with dnspython, which is loaded at the first question.

It gives records as plain data and judges none of them.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.service_bindings import Question, ServiceRecord

_RESOLVER = "dns.asyncresolver"
_LIFETIME = 2.0
"""Seconds after which a question is given up here, if nobody has withdrawn it before."""


def can_ask() -> bool:
    """Whether dnspython is installed."""
    return _RESOLVER in sys.modules or find_spec("dns") is not None


def ask_service(question: Question) -> asyncio.Future[list[ServiceRecord]]:
    """Ask on the running loop, without a thread: a server that never answers takes none from other look-ups."""
    return asyncio.ensure_future(_service_records(question))


def srv_records(query: str) -> list[tuple[str, int]]:
    """Hosts and ports, the lowest priority and then the greatest weight first (RFC 2782, but without its dice: the
    same inputs give the same order). Blocks."""
    try:
        import dns.resolver
    except ImportError:
        raise EstablishmentError(
            f"the DNS SRV name {query} cannot be looked up: install dnspython, or give a port",
            Reason.RESOLUTION_FAILED,
        ) from None
    records = sorted(
        dns.resolver.resolve(query, "SRV"),
        key=lambda record: (record.priority, -record.weight, str(record.target)),
    )
    hosts = [(_spelled(record.target), int(record.port)) for record in records]
    return [(host, port) for host, port in hosts if host]


async def _service_records(question: Question) -> list[ServiceRecord]:
    if _RESOLVER not in sys.modules:
        # On the loop, the import and the reading of the host's configuration would hold up the race.
        await asyncio.get_running_loop().run_in_executor(None, _load)
    import dns.asyncresolver

    resolver = dns.asyncresolver.get_default_resolver()
    answer = await resolver.resolve(f"{question.name}.", question.kind, lifetime=_LIFETIME, search=False)
    owner = _spelled(answer.canonical_name)
    return [record for data in answer if (record := _service_record(data, owner)) is not None]


def _load() -> None:
    importlib.import_module(_RESOLVER).get_default_resolver()


def _service_record(data: Any, owner: str) -> ServiceRecord | None:
    """The record as plain data; None for one that may only be used by those who know more parameters (RFC 9460 section
    8). A target that is the root stands for the owner of the record, or, of an alias, for none (section 2.5)."""
    from dns.rdtypes.svcbbase import ParamKey

    parameters = data.params
    known = {ParamKey.ALPN, ParamKey.NO_DEFAULT_ALPN, ParamKey.PORT, ParamKey.IPV4HINT, ParamKey.IPV6HINT}
    mandatory = parameters.get(ParamKey.MANDATORY)
    if mandatory is not None and not known.issuperset(mandatory.keys):
        return None
    target = _spelled(data.target)
    port, alpn = parameters.get(ParamKey.PORT), parameters.get(ParamKey.ALPN)
    return ServiceRecord(
        int(data.priority),
        target or (owner if data.priority else ""),
        None if port is None else int(port.port),
        () if alpn is None else _decoded(alpn.ids),
        ParamKey.NO_DEFAULT_ALPN not in parameters,
        (*_addresses(parameters.get(ParamKey.IPV6HINT)), *_addresses(parameters.get(ParamKey.IPV4HINT))),
    )


def _spelled(name: Any) -> str:
    return str(name).rstrip(".")


def _decoded(names: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(name.decode("ascii") for name in names if name.isascii())


def _addresses(hint: Any) -> tuple[str, ...]:
    return () if hint is None else tuple(map(str, hint.addresses))
