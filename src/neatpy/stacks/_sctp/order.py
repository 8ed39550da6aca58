"""Whose Message goes next on one association: usrsctp's schedulers, and the order in which Flows offer theirs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from neatpy.enumerations import Scheduler
from neatpy.stacks._sctp import options

if TYPE_CHECKING:
    from collections.abc import Collection

    from neatpy.stacks._sctp.flow import SctpFlow

MOST_BEGUN = 4
"""Messages that are under way in parts while others, no more urgent, wait to begin."""

SCHEDULERS: Mapping[Scheduler, options.Scheduler] = MappingProxyType(
    {
        Scheduler.FIRST_COME_FIRST_SERVED: options.Scheduler.FIRST_COME,
        Scheduler.ROUND_ROBIN: options.Scheduler.ROUND_ROBIN,
        Scheduler.ROUND_ROBIN_PACKET: options.Scheduler.ROUND_ROBIN_PACKET,
        Scheduler.PRIORITY: options.Scheduler.PRIORITY,
        Scheduler.FAIR_CAPACITY: options.Scheduler.ROUND_ROBIN,
    }
)
"""What usrsctp has, of which round robin goes by fragments where there is interleaving. Its fair bandwidth charges a
stream for all that its message still holds with every fragment, and so starves whoever has most to send: round robin is
fairer. It has no weighted fair queueing, for which fair capacity or, with unequal priorities, priority stands in."""


def scheduler_for(wanted: Scheduler, flows: Collection[SctpFlow]) -> options.Scheduler:
    """Usrsctp's scheduler, which serves all streams of an association."""
    if wanted is Scheduler.WEIGHTED_FAIR_QUEUEING:
        priorities = {flow.properties.conn_priority for flow in flows}
        wanted = Scheduler.PRIORITY if len(priorities) > 1 else Scheduler.FAIR_CAPACITY
    return SCHEDULERS[wanted]


def in_turn(writers: Collection[SctpFlow]) -> list[SctpFlow]:
    """Who waits to write: the most urgent first, and equals in turn, as whoever was served waits at the end. Yet while
    many Messages are under way those go on before others begin: usrsctp is slow with many."""
    crowded = len(writers) > MOST_BEGUN and sum(flow.mid_message for flow in writers) >= MOST_BEGUN
    return sorted(writers, key=lambda flow: (flow.priority, crowded and not flow.mid_message))
