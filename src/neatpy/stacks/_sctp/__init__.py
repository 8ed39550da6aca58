"""SCTP in user space: the library usrsctp, its one engine for each process, and associations over it.

- ``packets``: what can be told of an SCTP packet without any state;
- ``library``: the C library as it is, with its structures and numbers;
- ``engine``: the loop's side of it: packets in and out of paths, timers, who has news;
- ``association``: one association, told of in Python's terms to its ``observer``;
- ``listener``: ports that associations are accepted on;
- ``options``: what can be set, each as one function;
- ``notifications``: what the library tells of an association, taken apart.

None of it knows UDP, DTLS or Connections: a path is a function that takes packets.
"""
