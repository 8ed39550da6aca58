"""QUIC on a protocol engine without sockets: the adapter to the engine, the driver, and Flows on streams."""
