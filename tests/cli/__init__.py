"""End-to-end tests of the public API, over real sockets on loopback."""
