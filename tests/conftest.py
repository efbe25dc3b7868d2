"""What tests share: no test reaches a network, and hypothesis is the same on every machine."""

import contextlib
import io
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton, whose own functions are made for it or not at import
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve the other core

import pytest
from hypothesis import HealthCheck, settings
from ran import Ran

settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """A folder for what the tests of a module share, and a way to run `ets` in it: `folder, run`."""
    from search.cli.main import main

    folder = tmp_path_factory.mktemp("made_once")

    def run(*args):
        with contextlib.chdir(folder), pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        assert ended.value.code == 0, args

    return folder, run


@pytest.fixture
def inside(tmp_path, monkeypatch, capsys):
    """The command line `ets` in this process, in an empty folder: without the seconds that a start takes."""
    from search.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*args, stdin="", env=None):
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as process, pytest.raises(SystemExit) as ended:
            process.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            for name, value in (env or {}).items():
                process.setenv(name, value)
            main([str(arg) for arg in args])
        shown = capsys.readouterr()
        return Ran(ended.value.code, shown.out, shown.err)

    return run


@pytest.fixture(params=["cascade", "paged", "recorded"])
def attention(request, monkeypatch):
    """Every contract of the local engine holds over arenas, over one pool, and in recorded turns."""
    import local_models

    monkeypatch.setattr(local_models, "ATTENTION", request.param)
    return request.param
