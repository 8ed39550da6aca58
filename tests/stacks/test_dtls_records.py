"""What dtls/udp decides without any network: records, datagrams and cookies."""

from __future__ import annotations

from neatpy.stacks._dtls.cookies import LIFETIME, Cookies
from neatpy.stacks._dtls.records import is_client_hello, is_record, is_single, packed


def test_a_cookie_is_bound_to_the_peer_the_time_and_the_listener() -> None:
    cookies = Cookies()
    cookie = cookies.make(b"peer", 1000)
    assert cookies.prove(b"peer", cookie, 1000)
    assert cookies.prove(b"peer", cookie, 1000 + LIFETIME)
    assert not cookies.prove(b"peer", cookie, 1000 + 2 * LIFETIME)
    assert not cookies.prove(b"other", cookie, 1000)
    assert not cookies.prove(b"peer", cookie[:-1], 1000)
    assert not Cookies().prove(b"peer", cookie, 1000)


def test_records_are_told_from_other_datagrams() -> None:
    hello = b"\x16\xfe\xff" + bytes(8) + b"\x00\x30" + b"\x01" + bytes(47)
    assert is_record(hello)
    assert is_client_hello(hello)
    assert is_single(hello)
    assert not is_single(hello + b"\x00")
    assert not is_client_hello(hello[:40])
    assert not is_client_hello(hello[:4] + b"\x01" + hello[5:])  # of a later epoch
    assert not is_record(b"\x16\x03\x01" + bytes(20))  # TLS
    assert not is_record(b"")


def test_records_are_packed_into_few_datagrams_and_never_divided() -> None:
    def record(size: int) -> bytes:
        return b"\x16\xfe\xfd" + bytes(8) + size.to_bytes(2, "big") + bytes(size)

    flight = [record(100), record(200), record(300), record(2000), record(10)]
    assert packed(b"".join(flight), 700) == [
        flight[0] + flight[1] + flight[2],
        flight[3],
        flight[4],
    ]
    assert packed(b"", 700) == []
