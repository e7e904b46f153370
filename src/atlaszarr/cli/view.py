"""The command `view`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import click

from ..stores.locations import output_file
from .options import OUTPUT, STORE, Whole, options
from .signals import end
from .terminal import echo, echo_data, is_quiet, say


@click.command()
@click.argument("target")
@click.option("--over", metavar="ANNOTATION", help="OME-Zarr of labels, annotation set or atlas to show over TARGET.")
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="ACRONYM",
    help="Select this region, by acronym, name or id, and begin there; repeatable [all].",
)
@click.option(
    "--port",
    type=Whole(0, 65535),
    default=0,
    metavar="N",
    help="Port on 127.0.0.1, as for ssh -L N:127.0.0.1:N [free].",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.option("--screenshot", metavar="PNG", help="Save a picture with Chromium, and end.")
@options(STORE, *OUTPUT)
def view(
    target: str,
    over: str | None,
    regions: tuple[str, ...],
    port: int,
    no_browser: bool,
    screenshot: str | None,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Show TARGET in a browser, with the regions of an annotation over it, until interrupted.

    TARGET is a volume or a collection of sections, an annotation, or an atlas; a path or a URL. A server on this
    machine sends all that the page needs; only this machine reaches it, and no internet is needed.

    For instance: atlaszarr view prox1.ome.zarr --over ccf --region DG
    """
    from ..viewing import view as show

    if screenshot is not None:
        from ..viewing.screenshot import chromium

        output_file(screenshot, [".png"])
        chromium()
    with show(target, over, regions=regions, port=port, storage_options=storage_options) as shown:
        if screenshot is not None:
            path = shown.screenshot(screenshot)
            if as_json:
                echo_data(json.dumps({"screenshot": path}))
            else:
                echo(path)
            return
        with suppress(KeyboardInterrupt):
            if as_json:
                echo_data(json.dumps({"url": shown.url}))
            else:
                echo(shown.url)
            if not is_quiet():
                say("atlaszarr: served to this machine until interrupted (Ctrl-C)")
            if not no_browser:
                import webbrowser

                webbrowser.open(shown.url)
            while True:
                time.sleep(0.5)  # short waits: Python's signal handler runs between them
        end()
