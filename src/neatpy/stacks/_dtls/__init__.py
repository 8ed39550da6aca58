"""The parts of the DTLS layer: its engine, cookies, the Flow over datagrams, and the Listener's side."""
