"""What a newcomer does after `make demo`, in the environment that it made: README's Python, solve, view, serve.

Usage: .venv/bin/python tests/newcomer.py

Needs curl, and nothing else beside the installed project. Ends with the name of the step that failed.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ETS = Path(sys.executable).parent / "ets"
PROBLEM = "Ben has 13 coins. He gives 4 away. He loses 3. He sells 4. How many coins are left in the end?"
LIMIT_SECONDS = 600.0
"""Of each step; they take seconds, so it ends only what hangs."""


class StepError(Exception):
    """A step did not do what the documents say."""


def run(*command: object, folder: Path) -> str:
    """A command's standard output.

    Raises:
        StepError: it did not end with code 0, or hung.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StepError(str(error)) from None
    if done.returncode != 0:
        raise StepError(f"exit code {done.returncode} of {command[0]}\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(holds: object, what: str) -> None:
    """Fail the step unless something holds."""
    if not holds:
        raise StepError(what)


def readme_python(folder: Path) -> None:
    """Run README's Python snippets as a person would paste them."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    expect(snippets, "README.md has no Python snippet")
    for place, snippet in enumerate(snippets):
        script = folder / f"readme_{place}.py"
        script.write_text(snippet, encoding="utf-8")
        expect(run(sys.executable, script, folder=folder).strip(), f"README.md's snippet {place + 1} prints nothing")


def next_line(folder: Path) -> None:
    """Type what README says after `make demo`, in a shell: first the line that finds `ets`, then the next one."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in page.partition("## Command line")[2].splitlines() if line.startswith("    ")]
    activate, first = lines[0], lines[1]
    expect(activate.startswith(". .venv/bin/activate"), f"README's first line does not find ets: {activate}")
    script = f"cd '{Path(sys.executable).parents[2]}' && {activate}\ncd '{folder}' && {first}\n"
    expect("Answer:" in run("sh", "-c", script, folder=folder), f"README's line prints no answer: {first}")


def solve(folder: Path) -> None:
    """Solve a problem and keep its tree."""
    shown = run(ETS, "solve", "--mini", "0", "--tree", "out.json", folder=folder)
    expect("Answer:" in shown, f"no answer is printed:\n{shown}")
    expect(json.loads((folder / "out.json").read_text(encoding="utf-8")), "out.json is empty")


def view(folder: Path) -> None:
    """Make the page of that tree; it must hold everything it needs."""
    run(ETS, "view", "out.json", "--out", "tree.html", "--no-open", folder=folder)
    page = (folder / "tree.html").read_text(encoding="utf-8")
    expect(page.lstrip().lower().startswith("<!doctype html"), "tree.html is no page")
    expect(not re.search(r"""(?:src|href)=["']https?:""", page), "tree.html asks the network for a part of itself")


def serve(folder: Path) -> None:
    """Serve, ask with curl, and end it by Ctrl-C."""
    curl = shutil.which("curl")
    expect(curl, "curl is not installed")
    server = subprocess.Popen(
        [str(ETS), "serve", "--port", "0", "--width", "4"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(LIMIT_SECONDS, server.kill)
    watchdog.start()
    said: list[str] = []
    try:
        assert server.stderr is not None
        url = None
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"https?://[^\s/]+", line):
                url = found.group()
                break
        expect(url, f"the server ended before it was ready:\n{''.join(said)}")
        drain = threading.Thread(target=lambda: said.extend(server.stderr or ()), daemon=True)
        drain.start()
        models = json.loads(run(curl, "-sS", "--noproxy", "*", f"{url}/v1/models", folder=folder))
        body = {"model": models["data"][0]["id"], "messages": [{"role": "user", "content": PROBLEM}]}
        answered = json.loads(
            run(curl, "-sS", "--fail-with-body", "--noproxy", "*", f"{url}/v1/chat/completions",
                "-H", "Content-Type: application/json", "-d", json.dumps(body), folder=folder)
        )  # fmt: skip
        expect(answered["choices"][0]["message"]["content"], f"an answer without text: {answered}")
        server.send_signal(signal.SIGINT)
        code = server.wait(LIMIT_SECONDS)
        drain.join(LIMIT_SECONDS)
        expect(code == 0, f"Ctrl-C ended the server with exit code {code}:\n{''.join(said)}")
        expect("Traceback" not in "".join(said), f"the server said:\n{''.join(said)}")
    finally:
        watchdog.cancel()
        if server.poll() is None:
            server.kill()
            server.wait()


STEPS: dict[str, Callable[[Path], None]] = {
    "README's Python snippet": readme_python,
    "README's first lines, in a shell": next_line,
    "ets solve --mini 0 --tree out.json": solve,
    "ets view out.json": view,
    "ets serve, curl, Ctrl-C": serve,
}


def main() -> int:
    """Take the steps in order; 1 at the first that fails."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        for name, step in STEPS.items():
            try:
                step(Path(folder))
            except (StepError, OSError, ValueError, LookupError) as error:
                sys.stderr.write(f"newcomer: FAILED at step: {name}\n{type(error).__name__}: {error}\n")
                return 1
            sys.stdout.write(f"newcomer: ok: {name}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
