"""Reading and writing checkpoints without chatter: what transformers prints, logs and warns of, kept from the user."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any


@contextmanager
def without_progress_bars() -> Iterator[Any]:
    """No progress bar of transformers; gives its logging."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield logging
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, no advice and no warnings while files are read; what matters is raised."""
    with without_progress_bars() as logging:
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            # Some of its progress bars listen to nothing but where stderr goes.
            with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.set_verbosity(verbosity)
