"""Starts and stops real SGLang servers on the CPU, from the environment that `make sglang-cpu` builds.

    python tests/sglang_server/launch.py up [target:30000 prm:30001 ...]
    python tests/sglang_server/launch.py down

Needs nothing but Python. The tests use `Server` and `Router`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
VENV = Path(os.environ.get("SGLANG_VENV", ROOT / ".venv-sglang"))
RUNNING = VENV / "running"
"""One file a server that `up` started: its name is the port, its content the process's id."""

MINI = ROOT / "search" / "mini" / "weights"
DEFAULT = ("target:30000", "prm:30001")
START_SECONDS = 420

ARGUMENTS = (
    "--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch",
    "--grammar-backend", "none", "--disable-overlap-schedule", "--max-total-tokens", "65536",
    "--mem-fraction-static", "0.5", "--enable-metrics", "--enable-cache-report", "--sleep-on-idle",
    "--dtype", "float32",
)  # fmt: skip


class StartError(RuntimeError):
    """A server did not come up; the message holds the end of its log."""


def environment(python_path: Iterable[Path] = ()) -> dict[str, str]:
    """Environment variables for SGLang on the CPU: stubs for what does not load there, one thread, no network."""
    paths = [HERE / "stubs", *python_path]
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "SGLANG_USE_CPU_ENGINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Process:
    """A server in a process group of its own, with its log in a file."""

    def __init__(self, command: Sequence[str], port: int, env: Mapping[str, str], health: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(tempfile.mkstemp(prefix=f"sglang-{port}-", suffix=".log")[1])
        self._health = self.url + health
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=dict(env), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Until it serves.

        Raises:
            StartError: it ended, or took too long.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, urllib.error.URLError):
                if urllib.request.urlopen(self._health, timeout=5).status == 200:
                    return
            time.sleep(0.5)
        self.kill()
        tail = self.log.read_text(errors="replace")[-3000:]
        raise StartError(f"the server on port {self.port} did not start\n{tail}")

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """End it, and every process it started, at once."""
        end_group(self.process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)

    def stop(self) -> None:
        """End it as an operator does; what is left of it is killed."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()
        self.log.unlink(missing_ok=True)


class Server(_Process):
    """One SGLang server."""

    def __init__(self, model: Path | str, *arguments: str, port: int | None = None, external: str = "") -> None:
        """Start it; `wait` waits until it serves.

        Args:
            model: folder of a checkpoint.
            arguments: more arguments of `sglang.launch_server`.
            port: where it listens; default: any.
            external: a package of model classes of ours, for SGLANG_EXTERNAL_MODEL_PACKAGE.
        """
        port = port or free_port()
        env = environment([ROOT] if external else [])
        if external:
            env["SGLANG_EXTERNAL_MODEL_PACKAGE"] = external
        command = [str(VENV / "bin" / "python"), "-m", "sglang.launch_server", "--model-path", str(model)]
        command += ["--host", "127.0.0.1", "--port", str(port), *ARGUMENTS, *arguments]
        super().__init__(command, port, env, "/health")


class Router(_Process):
    """`sglang-router` in front of servers."""

    def __init__(self, workers: Sequence[str], *arguments: str) -> None:
        """Start it over the URLs of `workers`."""
        port = free_port()
        command = [str(VENV / "bin" / "python"), "-m", "sglang_router.launch_router", "--worker-urls", *workers]
        command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()), *arguments]
        # Its health says nothing of its workers: it serves once one of them can be asked through it.
        super().__init__(command, port, environment(), "/get_model_info")


def end_group(pid: int, signum: int = signal.SIGKILL) -> None:
    """Signal the process group that `pid` leads, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def up(names: Sequence[str]) -> None:
    """Start members of the mini family, each on its port, and wait until all serve."""
    RUNNING.mkdir(parents=True, exist_ok=True)
    started: list[tuple[str, Server]] = []
    for name in names:
        role, _, port = name.partition(":")
        if not (MINI / role).is_dir() or not port.isdecimal():
            sys.exit(f"{name!r}: must be one of {', '.join(sorted(p.name for p in MINI.iterdir()))}, and :PORT")
        if (RUNNING / port).exists():
            down([port])
        server = Server(MINI / role, "--enable-return-hidden-states", port=int(port))
        (RUNNING / port).write_text(str(server.process.pid))
        started.append((role, server))
    for role, server in started:
        try:
            server.wait()
        except StartError as error:
            down([str(one.port) for _, one in started])
            sys.exit(str(error))
        sys.stderr.write(f"mini:{role} is served at {server.url}, log {server.log}\n")


def down(ports: Iterable[str]) -> None:
    """Stop what `up` started."""
    for port in ports:
        file = RUNNING / port
        if file.exists():
            pid = int(file.read_text())
            end_group(pid, signal.SIGTERM)
            time.sleep(2)
            end_group(pid)
            file.unlink()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("servers", nargs="*", default=list(DEFAULT), help="role:port, of the mini family")
    given = parser.parse_args()
    if not (VENV / "bin" / "python").exists():
        sys.exit(f"{VENV} is not there; `make sglang-cpu` builds it")
    if given.what == "up":
        up(given.servers)
    elif RUNNING.is_dir():
        down(sorted(file.name for file in RUNNING.iterdir()))


if __name__ == "__main__":
    main()
