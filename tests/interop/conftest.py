"""What the tests against real peers share with those of the public API: nothing reaches the loop's exception handler
unasked; and files with certificates for programs that read files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.conftest import complaints, quick_collection
from interop.identities import Identities
from interop.netns import Link, Namespace, NotPermitted, linked, namespace

collect_ignore = ["quic_peer.py"]  # a program for whatever Python has what it imports

__all__ = ["complaints", "quick_collection"]


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Certificates of two authorities, in memory and as files."""
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture(scope="module")
def alone() -> Iterator[Namespace]:
    """A network namespace with nothing but its loopback interface."""
    try:
        with namespace() as made:
            yield made
    except NotPermitted as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    """Two network namespaces with two wires between them."""
    try:
        with linked() as made:
            yield made
    except NotPermitted as error:
        pytest.skip(str(error))
