"""The command ``ames serve``: a search page for a collection."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ames.cli.options import add_collection, add_examples, tell_progress
from ames.errors import AmesError, installing
from ames.io.console import add_device, check_device, natural, positive


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    serve = commands.add_parser(
        "serve",
        help="a search page for a collection, in the browser",
        description="Serve a search page for a collection that ames index made. Only this machine reaches "
        "it; another --host needs a token, which is printed with the address, or is AMES_TOKEN's.",
    )
    add = serve.add_argument
    add_collection(serve)
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    add("--port", type=natural, default=8008, help="port to listen on, 0: any free one (8008)")
    add("--queue", type=positive, default=32, help="searches that may wait; more get status 503 (32)")
    add("--max-upload-mb", type=positive, default=32, metavar="MB", help="largest photo that is taken (32)")
    add("-q", "--quiet", action="store_true", help="print no messages but the address and errors")
    add_device(serve)
    add_examples(
        serve,
        "ames serve photos.db",
        "ames serve photos.db --port 0 --device cuda",
        "ames serve photos.db --host 0.0.0.0",
    )
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> None:
    check_device(args.device)
    tell_progress(args)
    try:
        from ames.web.app import Limits
        from ames.web.server import Place, serve
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if lacking not in ("starlette", "uvicorn"):
            raise
        raise AmesError(f"{lacking} is not installed: {installing('serve')}") from error
    limits = Limits(args.queue, args.max_upload_mb << 20)
    place = Place(args.host, args.port)
    serve(args.database, place, limits=limits, device=args.device, tell=lambda line: print(line, flush=True))
    print("ames serve: stopped", file=sys.stderr)
