"""NEATPy beside what asyncio and uvloop offer themselves, doing the same work in one run.

``python -m benchmarks [NAME ...] [--quick] [--json FILE]``; the names are those of the modules listed in
:mod:`benchmarks.__main__`, each of which says what it measures and how. Contenders take turns round by round, so that
whatever else the machine does hits all of them; figures are medians, and what counts are their ratios.

``contenders/`` has the same work written for each API; servers and clients run in processes of their own
(:mod:`benchmarks.server`, :mod:`benchmarks.client`), which :mod:`benchmarks.harness` starts, bounds and stops.
"""
