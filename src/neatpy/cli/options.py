"""The options that the commands share, as annotations for typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neatpy.cli.wishes import Framing, Profile

_WISHES = "What the traffic needs"
_SECURITY = "Security"

_READABLE = {"exists": True, "dir_okay": False, "readable": True}

ProfileOption = Annotated[
    Profile,
    typer.Option(
        metavar="|".join(Profile), help="The properties to start from (RFC 9622).", rich_help_panel=_WISHES
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="NAME",
        help="A feature there must be. Also interface=eth0.",
        rich_help_panel=_WISHES,
    ),
]
PreferOption = Annotated[
    list[str] | None,
    typer.Option("--prefer", metavar="NAME", help="A feature that ranks first.", rich_help_panel=_WISHES),
]
AvoidOption = Annotated[
    list[str] | None,
    typer.Option("--avoid", metavar="NAME", help="A feature that ranks last.", rich_help_panel=_WISHES),
]
ProhibitOption = Annotated[
    list[str] | None,
    typer.Option("--prohibit", metavar="NAME", help="A feature there must not be.", rich_help_panel=_WISHES),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any property, such as keep_alive_timeout=30.",
        rich_help_panel=_WISHES,
    ),
]
InterfaceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Use this network interface only.", rich_help_panel=_WISHES),
]
FramerOption = Annotated[
    Framing | None,
    typer.Option(
        metavar="|".join(Framing),
        help="Give a byte stream Messages; with 'line', each line is one.",
        rich_help_panel=_WISHES,
    ),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No transport security at all.", rich_help_panel=_SECURITY)
]
OpportunisticOption = Annotated[
    bool,
    typer.Option(
        "--opportunistic",
        help="Encrypt where the peer can, verify nobody, else send in the clear.",
        rich_help_panel=_SECURITY,
    ),
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Trust these roots (PEM) too; a listener demands client certificates of them.",
        rich_help_panel=_SECURITY,
        **_READABLE,
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--cert",
        metavar="FILE",
        help="The own certificate chain (PEM).",
        rich_help_panel=_SECURITY,
        **_READABLE,
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Its private key (PEM), unless that is in the same file.",
        rich_help_panel=_SECURITY,
        **_READABLE,
    ),
]
PinOption = Annotated[
    Path | None,
    typer.Option(
        "--pin",
        metavar="FILE",
        help="The only certificate (PEM) that the server may present.",
        rich_help_panel=_SECURITY,
        **_READABLE,
    ),
]
AlpnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--alpn", metavar="NAME", help="An application protocol to negotiate.", rich_help_panel=_SECURITY
    ),
]
WaitOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Once one side is done, exit when nothing has come from the other for so long.",
        show_default=False,
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell on stderr of everything that happens.")
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="A name or an address.")]
PortArgument = Annotated[str, typer.Argument(metavar="PORT", help="A number, or a service such as https.")]
