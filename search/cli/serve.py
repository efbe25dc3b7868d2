"""`ets serve`: an OpenAI-compatible server whose answers are searched."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from search.cli.number import Number
from search.cli.options import read_settings, settings_options
from search.config import SearchSettings
from search.errors import ConfigError
from search.support.extras import install


@click.command()
@settings_options(SearchSettings, short=False)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="address to listen at")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N", help="0 takes any free one"
)
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
@click.option(
    "--max-width", type=click.IntRange(min=1), default=64, show_default=True, metavar="N", help="width of one search"
)
@click.option(
    "--max-request-tokens",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="N",
    help="most --max-tokens that a request may ask for",
)
@click.option(
    "--max-concurrent", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="searches at once"
)
@click.option(
    "--max-queue", type=click.IntRange(min=0), default=64, show_default=True, metavar="N", help="searches that may wait"
)
@click.option(
    "--max-body-bytes", type=click.IntRange(min=1), default=1 << 20, show_default=True, metavar="N", help="of a request"
)
@click.option(
    "--shutdown-seconds",
    type=Number(min=0, max=86400),
    default=30.0,
    show_default=True,
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
    max_width: int,
    max_request_tokens: int,
    max_concurrent: int,
    max_queue: int,
    max_body_bytes: int,
    shutdown_seconds: float,
    deadline: float | None,
    policies: tuple[str, ...],
    prms: tuple[str, ...],
    access_log: str | None,
    log_prompts: bool,
    **_: object,
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

    limits = ServeLimits(
        max_width=max_width,
        max_tokens=max_request_tokens,
        max_concurrent=max_concurrent,
        max_queue=max_queue,
        max_body_bytes=max_body_bytes,
        shutdown_seconds=shutdown_seconds,
        deadline=deadline,
    )
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
