"""The commands and their options, for typer. What they do is in the other rooms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

import neatpy
from neatpy.cli import options
from neatpy.cli.console import tell_events
from neatpy.cli.wishes import Profile, Wishes

T = TypeVar("T")

app = typer.Typer(
    name="neatpy",
    help="Say what your traffic needs; NEATPy picks the protocol and the path (RFC 9621, 9622, 9623).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"neatpy {neatpy.__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo() -> None:
    """Four clients that ask for different things, on loopback: what was considered, and what won."""
    from neatpy.cli.demo import demonstrate

    raise typer.Exit(neatpy.run(demonstrate()))


@app.command()
def connect(
    host: options.HostArgument,
    port: options.PortArgument,
    profile: options.ProfileOption = Profile.RELIABLE_INORDER_STREAM,
    require: options.RequireOption = None,
    prefer: options.PreferOption = None,
    avoid: options.AvoidOption = None,
    prohibit: options.ProhibitOption = None,
    settings: options.SetOption = None,
    interface: options.InterfaceOption = None,
    framer: options.FramerOption = None,
    insecure: options.InsecureOption = False,
    opportunistic: options.OpportunisticOption = False,
    ca: options.AuthorityOption = None,
    cert: options.CertificateOption = None,
    key: options.KeyOption = None,
    pin: options.PinOption = None,
    alpn: options.AlpnOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up connecting after so long.", show_default=False),
    ] = None,
    wait: options.WaitOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="First print on stderr what will be tried, and why.")
    ] = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Standard input to a peer and what it sends to standard output: a netcat that speaks properties.

    The end of the input is told to the peer; the program ends when the peer is done too.
    Data left in a pipe or file are sent even after that. Exit code 1 if anything failed.
    """
    from neatpy.cli import commands

    wishes = Wishes(
        profile=profile,
        require=require,
        prefer=prefer,
        avoid=avoid,
        prohibit=prohibit,
        settings=settings,
        interface=interface,
        framer=framer,
        insecure=insecure,
        opportunistic=opportunistic,
        ca=ca,
        cert=cert,
        key=key,
        pin=pin,
        alpn=alpn,
    )
    preconnection = _checked(lambda: commands.to_peer(host, port, wishes))
    if timeout is not None and timeout <= 0:
        raise typer.BadParameter("--timeout is more than 0 seconds")
    if verbose:
        tell_events()
    code = neatpy.run(
        commands.connect(
            preconnection, f"{host} port {port}", framer, timeout=timeout, wait=wait, explained=explain
        )
    )
    raise typer.Exit(code)


@app.command()
def listen(
    port: Annotated[str, typer.Argument(metavar="PORT", help="A number (0: any that is free) or a service.")],
    profile: options.ProfileOption = Profile.RELIABLE_INORDER_STREAM,
    require: options.RequireOption = None,
    prefer: options.PreferOption = None,
    avoid: options.AvoidOption = None,
    prohibit: options.ProhibitOption = None,
    settings: options.SetOption = None,
    interface: options.InterfaceOption = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Listen on this own address only.", show_default=False),
    ] = None,
    framer: options.FramerOption = None,
    insecure: options.InsecureOption = False,
    opportunistic: options.OpportunisticOption = False,
    ca: options.AuthorityOption = None,
    cert: options.CertificateOption = None,
    key: options.KeyOption = None,
    alpn: options.AlpnOption = None,
    self_signed: Annotated[
        list[str] | None,
        typer.Option(
            "--self-signed",
            metavar="NAME",
            help="Make a certificate for this name or address.",
            rich_help_panel="Security",
        ),
    ] = None,
    save_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the certificate there, for 'connect --ca FILE'.",
            rich_help_panel="Security",
            dir_okay=False,
        ),
    ] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Send back whatever arrives.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", "-k", help="Serve on after the first connection, until interrupted.")
    ] = False,
    wait: options.WaitOption = None,
    verbose: options.VerboseOption = False,
) -> None:
    """Wait for a connection on every stack that fits, then act like connect.

    With --keep and without --echo, connections have the standard streams one after the other.
    """
    from neatpy.cli import commands

    wishes = Wishes(
        profile=profile,
        require=require,
        prefer=prefer,
        avoid=avoid,
        prohibit=prohibit,
        settings=settings,
        interface=interface,
        framer=framer,
        insecure=insecure,
        opportunistic=opportunistic,
        ca=ca,
        cert=cert,
        key=key,
        alpn=alpn,
        self_signed=self_signed,
    )
    preconnection = _checked(lambda: commands.at_port(port, address, wishes, save_cert))
    if verbose:
        tell_events()
    raise typer.Exit(neatpy.run(commands.listen(preconnection, framer, wait=wait, echoing=echo, keep=keep)))


@app.command()
def explain(
    host: options.HostArgument,
    port: options.PortArgument,
    profile: options.ProfileOption = Profile.RELIABLE_INORDER_STREAM,
    require: options.RequireOption = None,
    prefer: options.PreferOption = None,
    avoid: options.AvoidOption = None,
    prohibit: options.ProhibitOption = None,
    settings: options.SetOption = None,
    interface: options.InterfaceOption = None,
    framer: options.FramerOption = None,
    insecure: options.InsecureOption = False,
    opportunistic: options.OpportunisticOption = False,
    ca: options.AuthorityOption = None,
    cert: options.CertificateOption = None,
    key: options.KeyOption = None,
    pin: options.PinOption = None,
    alpn: options.AlpnOption = None,
) -> None:
    """What connect would try, in which order, and why everything else was ruled out or ranked lower.

    Nothing is sent but name lookups. Exit code 1 if there is nothing to try.
    """
    from neatpy.cli import commands

    wishes = Wishes(
        profile=profile,
        require=require,
        prefer=prefer,
        avoid=avoid,
        prohibit=prohibit,
        settings=settings,
        interface=interface,
        framer=framer,
        insecure=insecure,
        opportunistic=opportunistic,
        ca=ca,
        cert=cert,
        key=key,
        pin=pin,
        alpn=alpn,
    )
    preconnection = _checked(lambda: commands.to_peer(host, port, wishes))
    raise typer.Exit(neatpy.run(commands.explain(preconnection, f"{host} port {port}")))


@app.command()
def probe(
    host: options.HostArgument,
    port: options.PortArgument,
    profile: options.ProfileOption = Profile.RELIABLE_INORDER_STREAM,
    require: options.RequireOption = None,
    prefer: options.PreferOption = None,
    avoid: options.AvoidOption = None,
    prohibit: options.ProhibitOption = None,
    settings: options.SetOption = None,
    interface: options.InterfaceOption = None,
    framer: options.FramerOption = None,
    insecure: options.InsecureOption = False,
    opportunistic: options.OpportunisticOption = False,
    ca: options.AuthorityOption = None,
    cert: options.CertificateOption = None,
    key: options.KeyOption = None,
    pin: options.PinOption = None,
    alpn: options.AlpnOption = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-t", help="Seconds that the race may take.", metavar="SECONDS"),
    ] = 10.0,
) -> None:
    """Race the candidates once, exchange nothing, and draw when each attempt began and how it ended.

    Exit code 1 if none was established.
    """
    from neatpy.cli import commands
    from neatpy.cli.probe import probe as race

    if timeout is not None and timeout <= 0:
        raise typer.BadParameter("--timeout is more than 0 seconds")

    wishes = Wishes(
        profile=profile,
        require=require,
        prefer=prefer,
        avoid=avoid,
        prohibit=prohibit,
        settings=settings,
        interface=interface,
        framer=framer,
        insecure=insecure,
        opportunistic=opportunistic,
        ca=ca,
        cert=cert,
        key=key,
        pin=pin,
        alpn=alpn,
    )
    preconnection = _checked(lambda: commands.to_peer(host, port, wishes))
    raise typer.Exit(neatpy.run(race(preconnection, f"{host} port {port}", timeout)))


@app.command()
def stacks() -> None:
    """What this host can do and, where not, why."""
    from neatpy.cli.stacks import show_stacks

    show_stacks()


def _checked(make: Callable[[], T]) -> T:
    """What the options amount to; a contradiction or a wrong value is an error of the command line."""
    try:
        return make()
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
