"""Why this protocol, and why not the others? Ask before connecting: nothing is sent but name lookups.

Run it: python examples/explain.py
"""

from __future__ import annotations

import neatpy
from neatpy import Preconnection, Preference, RemoteEndpoint, SecurityParameters, TransportProperties


async def main() -> None:
    preconnection = Preconnection(
        remote=RemoteEndpoint("127.0.0.1", 4433),
        properties=TransportProperties(
            reliability=Preference.PREFER,  # better with, but without will do
            preserve_order=Preference.NO_PREFERENCE,
            congestion_control=Preference.NO_PREFERENCE,
            safely_replayable=True,
        ),
        security=SecurityParameters.disabled(),
    )
    # The tree in RFC 9623's notation: paths, below them protocols, below them addresses, best first.
    print(await preconnection.explain())

    # A Preconnection can be used again and changed in between; what it made before stays as it was.
    preconnection.properties.require("multistreaming").require("reliability").prohibit("congestion_control")
    selection = await preconnection.explain()
    print()
    print("and with contradictory wishes:", "nothing" if not selection.candidates else selection.candidates)
    for entry in selection.ruled_out:
        print(f"  {entry.what}: {entry.reasons[-1]}")


neatpy.run(main())
