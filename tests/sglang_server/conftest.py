"""Real SGLang servers for the tests, each started when it is first asked for and stopped at the end."""

import contextlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit")]

import launch  # noqa: E402
from contract_model import SGLANG_POSITIONS, build  # noqa: E402

MINI = launch.MINI


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Servers by name; `start` begins several at once, `url` waits for one."""
    if not (launch.VENV / "bin" / "python").exists():
        pytest.fail(f"{launch.VENV} is not there; `make test-sglang` builds it")
    family = Family(tmp_path_factory.mktemp("served"))
    yield family
    family.stop()


class Family:
    """The servers of one test run."""

    def __init__(self, folder):
        self.folder = folder
        self._running = {}
        self._ready = set()

    def model(self, name):
        """The folder of what a server serves."""
        role = name.partition("-")[0]
        if (MINI / role).is_dir():
            return MINI / role
        where = self.folder / name
        if not where.exists():
            where.mkdir()
            if name == "contract":
                build(where, SGLANG_POSITIONS)
            else:
                from prm_checkpoints import FAMILIES

                builder, argument, _ = FAMILIES[name]
                builder(where, argument)
        return where

    def start(self, *names):
        for name in names:
            if name in self._running:
                continue
            if name == "contract" or (MINI / name.partition("-")[0]).is_dir():
                self._running[name] = launch.Server(self.model(name), "--enable-return-hidden-states")
            else:
                self._running[name] = launch.Server(self.model(name), "--is-embedding", external="prm.sglang_models")

    def server(self, name):
        self.start(name)
        if name not in self._ready:
            self._running[name].wait()
            self._ready.add(name)
        return self._running[name]

    def url(self, name):
        return self.server(name).url

    def restart(self, name):
        """The same server on the same port, after it was killed."""
        old = self._running.pop(name)
        self._ready.discard(name)
        self._running[name] = launch.Server(self.model(name), "--enable-return-hidden-states", port=old.port)

    def stop(self, *names):
        for name in names or tuple(self._running):
            with contextlib.suppress(KeyError):
                self._running.pop(name).stop()
            self._ready.discard(name)
