"""Head-of-line blocking: 15 MB on one Connection and, 10 s later, 1 MB on a clone of it, over 5 Mbit/s with an RTT of
30 ms.

The link is between two network namespaces (:mod:`benchmarks.link`), which takes the rights of root. Over ``sctp`` both
are streams of one association, over ``tcp`` connections of their own. The figure is the time until the 1 MB is there:
alone, beside the 15 MB, and beside them with a higher connPriority. The best that a fair link can do is twice the time
alone, and with priority the time alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from benchmarks.harness import Floor, Measure, Options
from benchmarks.link import FAR_ADDRESS, NoLinkError, Settings, slow_link
from benchmarks.sides import client_inside, server_inside

SHARING = "benchmarks.sharing"
MUCH, LATER, LESS = 15_000_000, 10.0, 1_000_000
QUICK = 5_000_000, 2.0, 500_000
NORMAL, URGENT = 100, 10


def measure(options: Options) -> Iterator[Measure]:
    """One measure for both protocols."""
    much, later, less = QUICK if options.quick else (MUCH, LATER, LESS)
    limits = (
        Floor("sctp, beside", "sctp, alone", 2.3, at_most=True),
        Floor("sctp, with priority", "sctp, alone", 1.3, at_most=True),
    )
    result = Measure(f"head of line: {less / 1e6:g} MB beside {much / 1e6:g} MB at 5 Mbit/s", "s", limits)
    try:
        with slow_link(Settings()) as sides:
            for _ in range(1 if options.quick else 3):
                for protocol in ("sctp", "tcp"):
                    with server_inside(sides.far, SHARING, protocol, FAR_ADDRESS) as port:
                        for name, size, priority in (
                            ("alone", 0, NORMAL),
                            ("beside", much, NORMAL),
                            ("with priority", much, URGENT),
                        ):
                            details = {
                                "port": port,
                                "much": size,
                                "later": later,
                                "less": less,
                                "priority": priority,
                            }
                            seconds = client_inside(
                                sides.near, SHARING, "client", protocol, FAR_ADDRESS, details
                            )
                            result.add(f"{protocol}, {name}", seconds)
    except NoLinkError as error:
        result.leave_out("all", str(error))
    except (subprocess.SubprocessError, ValueError) as error:
        result.fail("all", error)
    yield result
