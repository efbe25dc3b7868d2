"""`ets serve`: an OpenAI-compatible server whose answers are searched."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from search.cli.kinds import COUNT, Number
from search.cli.options import read_settings, settings_options
from search.cli.training import take_settings
from search.config import SearchSettings
from search.errors import ConfigError
from search.support.extras import install


@click.command()
@settings_options(SearchSettings, short=False)
@click.option("--host", default="127.0.0.1", metavar="HOST", help="address to listen at")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, metavar="N", help="0 takes any free one")
@click.option("--name", metavar="NAME", help="the model's name to clients; default: made from the policy's")
@click.option(
    "--api-key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="what clients must send; may be repeated, or stand in ETS_API_KEY, with commas; default: none is asked for",
)
@click.option(
    "--allowed-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="whose web pages a browser lets ask, e.g. http://localhost:3000; may be repeated; * for any; default: none",
)
@click.option("--max-width", type=COUNT, default=64, metavar="N", help="width of one search")
@click.option(
    "--max-request-tokens", type=COUNT, default=4096, metavar="N", help="most --max-tokens that a request may ask for"
)
@click.option("--max-concurrent", type=COUNT, default=8, metavar="N", help="searches at once")
@click.option("--max-queue", type=click.IntRange(min=0), default=64, metavar="N", help="searches that may wait")
@click.option("--max-body-bytes", type=COUNT, default=1 << 20, metavar="N", help="of a request")
@click.option(
    "--shutdown-seconds",
    type=Number(min=0, max=86400),
    default=30.0,
    metavar="X",
    help="on SIGTERM, until what still runs is cancelled",
)
@click.option(
    "--deadline",
    type=Number(min=0, min_open=True, max=86400),
    metavar="X",
    help="seconds from a request to its answer, which is then the best so far; default: as long as it takes",
)
@click.option(
    "--more-policy",
    "policies",
    multiple=True,
    metavar="MODEL[=ENGINE]",
    help="another policy, which requests choose by its name; may be repeated",
)
@click.option(
    "--more-prm",
    "prms",
    multiple=True,
    metavar="MODEL[=ENGINE]",
    help="another reward model, which requests choose by its name; may be repeated",
)
@click.option("--access-log", metavar="FILE", help="a JSON object a line for each request; - for standard output")
@click.option("--log-prompts", is_flag=True, help="the access log has what was asked and answered, too")
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    config: Path | None,
    host: str,
    port: int,
    name: str | None,
    keys: tuple[str, ...],
    origins: tuple[str, ...],
    policies: tuple[str, ...],
    prms: tuple[str, ...],
    access_log: str | None,
    log_prompts: bool,
    **options: Any,
) -> int:
    """Serve searched answers to any OpenAI client, until a signal ends it.

    The settings are those of every search; a request may choose others by its model's name, its base URL or its body.
    """
    settings = read_settings(SearchSettings, ctx, config)
    try:
        from search.serve.access_log import AccessLog
        from search.serve.run import listen
        from search.serve.run import serve as run
        from search.serve.searches import Extra
        from search.serve.service import ServeLimits, Service
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; {install('serve')}") from None

    limits = take_settings(ServeLimits, {**options, "max_tokens": options["max_request_tokens"]})
    extras = [*(Extra.parse("policy", text) for text in policies), *(Extra.parse("prm", text) for text in prms)]
    if log_prompts and access_log is None:
        raise ConfigError("--log-prompts: there is no log; give --access-log too")
    given = [key.strip() for key in keys or os.environ.get("ETS_API_KEY", "").split(",") if keys or key]
    if not all(given):
        raise ConfigError("--api-key: a key must not be empty")
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (origin != f"{parts.scheme}://{parts.netloc}" or not parts.scheme or not parts.netloc):
            raise ConfigError(f"--allowed-origin {origin!r}: accepted: SCHEME://HOST[:PORT] without a path, or *")
    log = None if access_log is None else AccessLog(access_log, prompts=log_prompts)
    with listen(host, port) as bound:
        # The service belongs to the loop it is made in.
        async def whole() -> None:
            await run(Service(settings, limits, name, extras=extras), bound, given, log, origins)

        asyncio.run(whole())
    return 0
