"""Runs the benchmarks and sets their ratios beside what they must reach. Only a failure to run is an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from pathlib import Path

from benchmarks.harness import Measure, Options, Verdict

NAMES = (
    "round_trips",
    "one_way",
    "bulk",
    "connects",
    "idle",
    "sctp",
    "quic",
    "quic_clones",
    "head_of_line",
    "first_reply",
    "silent_udp",
    "startup",
    "classic",
)
APIS = (
    "neatpy",
    "classic",
    "protocol",
    "streams",
    "neatpy_sctp",
    "usrsctp",
    "aiortc_sctp",
    "neatpy_quic",
    "aioquic_bare",
    "aioquic_asyncio",
)


def main() -> int:
    """Run what the command line names, print, and say by the exit code whether everything could be run."""
    arguments = _parse()
    options = Options(arguments.quick, frozenset(APIS) - frozenset(arguments.without), arguments.spread)
    print(f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}\n")
    measures: list[Measure] = []
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        for measure in module.measure(options):
            measures.append(measure)
            _print(measure)
    if arguments.json:
        arguments.json.write_text(json.dumps([_as_json(measure) for measure in measures], indent=2) + "\n")
    _summarise(measures)
    return 1 if any(measure.failures for measure in measures) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which measures, of: {', '.join(NAMES)} (all)")
    parser.add_argument(
        "--quick", action="store_true", help="short and few rounds: a look, not a measurement"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--without", action="append", choices=APIS, default=[], help="leave these contenders out"
    )
    parser.add_argument(
        "--spread",
        action="store_true",
        help="do not pin one-way and bulk transfers to one core: needs a quiet machine",
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"there is no measure {name!r}; the names are {', '.join(NAMES)}")
    return arguments


def _print(measure: Measure) -> None:
    print(f"{measure.title} ({measure.unit})")
    for name, figures in sorted(measure.figures.items(), key=lambda item: measure.typical(item[0])):
        low, high = min(figures), max(figures)
        digits = 2 if measure.unit == "s" else 1
        spread = f"{low:,.{digits}f} to {high:,.{digits}f} in {len(figures)}"
        print(f"  {name:24} {measure.typical(name):12,.{digits}f}   {spread}")
    for name, why in measure.failures.items():
        print(f"  {name:24} could not be measured: {why}")
    for name, why in measure.left_out.items():
        print(f"  {name:24} left out: {why}")
    for verdict in measure.verdicts():
        print(f"  {_line(verdict)}")
    print(flush=True)


def _summarise(measures: list[Measure]) -> None:
    verdicts = [(measure, verdict) for measure in measures for verdict in measure.verdicts()]
    if verdicts:
        print("Against what it must reach")
    for measure, verdict in verdicts:
        print(f"  {measure.title:46} {_line(verdict)}")


def _line(verdict: Verdict) -> str:
    mark = "PASS" if verdict.met else "MISSED"
    bound = "at most" if verdict.at_most else "at least"
    return f"{mark:6} {verdict.text:46} {verdict.value:8,.2f}  ({bound} {verdict.limit:,.2f})"


def _as_json(measure: Measure) -> dict[str, object]:
    return {
        "title": measure.title,
        "unit": measure.unit,
        "figures": measure.figures,
        "typical": {name: measure.typical(name) for name in measure.figures},
        "failures": measure.failures,
        "left_out": measure.left_out,
        "verdicts": [verdict._asdict() for verdict in measure.verdicts()],
    }


if __name__ == "__main__":
    sys.exit(main())
