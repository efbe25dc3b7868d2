"""A server from its socket to its end: where it listens, how it says that it is ready, and what signals do."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from search.errors import ConfigError
from search.runs.session import garbage_frozen
from search.serve.access_log import AccessLog
from search.serve.app import make_app
from search.serve.service import Service

_BACKLOG = 2048
"""Connections that wait to be taken up."""

_SWITCH_SECONDS = 0.0005
"""How long the thread of models in this process keeps the interpreter while the server's loop wants it: at the usual
5 ms the loop, which lets go of it at each read and write, was seconds late under load."""

_BACKSTOP_SECONDS = 5.0
"""Beyond the deadline of searches, for answers to be sent; then connections are cut."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0 takes any that is free.

    It listens before the models are loaded: a port that is only bound could be taken by another server meanwhile. Who
    connects until then waits for the answer.

    Raises:
        ConfigError: the address is taken, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(_BACKLOG)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen at {host}, port {port}: {reason}") from None
    return bound


def url(bound: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Says when it is ready, drains its searches before it closes, and leaves the exit code to its caller."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal drains, the second cancels; SIGINT also where a shell had it ignored, and so we blocked."""
        loop = asyncio.get_running_loop()
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.end)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Take no more connections and drain; called again, cancel what still runs."""
        if self._draining is None:
            running, seconds = len(self._service.jobs.active), self._service.limits.shutdown_seconds
            rest = f"; {running} searches have {seconds:g} s to end, and another signal cancels them" if running else ""
            sys.stderr.write(f"ets: the server ends{rest}\n")
        work = self._service.drain() if self._draining is None else self._service.stop()
        self._draining = asyncio.get_running_loop().create_task(work)
        self.should_exit = True


async def serve(
    service: Service,
    bound: socket.socket,
    keys: Sequence[str] = (),
    log: AccessLog | None = None,
    origins: Sequence[str] = (),
) -> None:
    """Serve until a signal comes.

    Args:
        service: what answers.
        bound: what `listen` gave.
        keys: API keys; none: everything is open.
        log: takes note of every request.
        origins: whose pages may ask; see `make_app`.

    Raises:
        ConfigError: a model cannot be used, or its server is not there.
    """
    await service.searches.load()  # before the start, where an error would be the framework's to report
    config = uvicorn.Config(
        make_app(service, keys, log, origins),
        http="h11",
        ws="none",
        lifespan="on",
        backlog=_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(service.limits.shutdown_seconds + _BACKSTOP_SECONDS),
    )

    if not keys and not ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback:
        sys.stderr.write(
            "ets: no API key is set, and this address is not the loopback: whoever reaches it may use it\n"
        )

    def ready() -> None:
        sys.stderr.write(f"ets: serving {service.name} at {url(bound)}/v1\n")
        sys.stderr.flush()

    sys.setswitchinterval(_SWITCH_SECONDS)
    with garbage_frozen():
        await _Server(config, service, ready).serve(sockets=[bound])
