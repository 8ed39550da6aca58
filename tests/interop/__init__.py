"""The public API against real peers: standard programs, plain sockets, and networks that misbehave."""
