"""What tests share: no test reaches a network, and hypothesis is the same on every machine."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve the other core

import pytest
from hypothesis import HealthCheck, settings
from ran import Ran

settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")


@pytest.fixture
def inside(tmp_path, monkeypatch, capsys):
    """The command line `ets` in this process, in an empty folder: without the seconds that a start takes."""
    from search.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        shown = capsys.readouterr()
        return Ran(ended.value.code, shown.out, shown.err)

    return run
