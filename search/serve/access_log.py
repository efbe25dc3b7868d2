"""The access log: one JSON object a line for each request that was answered, without a word of what it asked."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from search.errors import ConfigError

if TYPE_CHECKING:
    from search.serve.jobs import Job


class AccessLog:
    """Writes lines to a file or to standard output; several processes may write to one file."""

    def __init__(self, target: str, *, prompts: bool = False) -> None:
        """Open the log.

        Args:
            target: a file, which is added to; "-" for standard output.
            prompts: whether what was asked, and the answer found, are written too.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._prompts = prompts
        self._file: TextIO = sys.stdout
        if target == "-":
            return
        try:
            self._file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115 - open as long as the server is
        except OSError as error:
            raise ConfigError(f"--access-log {target}: {error.strerror or error}") from None

    def write(self, *, client: str, method: str, path: str, status: int, seconds: float, job: Job | None) -> None:
        """Note a request. Its query is left out, as it may hold a key.

        Args:
            client: the address that asked.
            method: of HTTP.
            path: that was asked for.
            status: of the answer; 499: the client left before it.
            seconds: from its arrival to the answer's end.
            job: its search, where it had one.
        """
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client,
            "method": method,
            "path": path,
            "status": status,
            "seconds": round(seconds, 4),
        }
        if job is not None:
            line |= self._search(job)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write no more."""
        if self._file is not sys.stdout:
            self._file.close()

    def _search(self, job: Job) -> dict[str, Any]:
        settings, result = job.search.settings, job.result
        line: dict[str, Any] = {
            "id": job.id,
            "model": job.model,
            "search_method": settings.method_name,
            "width": settings.width,
            "prm": settings.prm,
            "seed": job.seed,
            "stream": job.asked.stream,
            "state": job.state,
            "seconds_queued": round(job.seconds_queued, 4),
            "deadline": job.deadline,
            "deadline_reached": job.late,
            "branches_lost": None if result is None else len(result.lost),
            "prompt_tokens": len(job.prompt.ids),
            "sampled_tokens": None if result is None else result.stats.policy_tokens,
            "error": job.error if self._prompts else bool(job.error),
        }
        if self._prompts:
            line |= {"prompt": job.prompt.text, "answer": None if result is None else result.answer}
        return line
