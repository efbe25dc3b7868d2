"""What a person sees while `ets eval` runs: a bar on a terminal, plain lines elsewhere."""

import asyncio
import contextlib
import io
import os
import pty
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from search.cli import show
from search.runs import pulse
from search.types import Usage


def test_on_a_terminal_a_bar_shows_accuracy_speed_cache_and_time_left(inside, monkeypatch):
    ours, theirs = pty.openpty()
    pieces = []

    def read():
        with contextlib.suppress(OSError):  # Linux says so when the other side is closed
            while piece := os.read(ours, 65536):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as process:
        process.setattr(sys, "stderr", terminal)
        ran = inside("eval", "--limit", 6, "--width", 2, "--json", env={"COLUMNS": "160", "TERM": "xterm"})
    reader.join()
    os.close(ours)
    assert ran.code == 0 and ran.out.startswith("{"), "the result alone is on stdout"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(pieces).decode())
    assert re.search(r"6/6.*0:00:0\d.*accuracy [01]\.\d{3}, \d+ tokens/s, KV \d+", text), text[-500:]


def test_elsewhere_it_is_plain_lines_with_the_time_left(monkeypatch):
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", seen)
    now = iter([0.0, 5.0, 12.0, 13.0, 30.0])
    monkeypatch.setattr(show.time, "monotonic", lambda: next(now))
    with show.progress("eval", 10, done=2) as bar:
        for done in (3, 6, 7, 10):
            bar(done, f"note {done}")
    assert seen.getvalue().splitlines() == ["eval: 6/10 note 6, 12 s left", "eval: 10/10 note 10"]


def test_the_time_left_knows_of_problems_that_are_half_done(monkeypatch):
    """Of 60 problems of 100 s each, 8 side by side, 750 s are to go in all; the first end said nearly 6,000."""
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", seen)
    now = iter([0.0, 100.0])
    monkeypatch.setattr(show.time, "monotonic", lambda: next(now))
    with show.progress("eval", 60, beside=8) as bar:
        bar(1, "")
    assert 650 < int(re.search(r"(\d+) s left", seen.getvalue())[1]) < 1300


def test_before_the_first_problem_ends_it_is_said_how_fast_it_goes_and_how_long_it_takes_at_most(inside, monkeypatch):
    """Of a real model on a busy laptop nothing was seen for seven minutes."""
    monkeypatch.setattr(pulse, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(pulse, "MOST_SECONDS", 0.02)
    monkeypatch.setattr(show, "_PLAIN_EVERY_SECONDS", 0.0)
    words = (
        "--policy",
        "mini:draft",
        "--prm",
        "none",
        "--method",
        "self-consistency",
        "--width",
        64,
        "--max-tokens",
        96,
    )
    lines = inside("eval", "--limit", 2, "--until", "spent", *words).err.splitlines()
    first = next(number for number, line in enumerate(lines) if "accuracy" in line)
    reading = next(at for at, line in enumerate(lines) if "a second" in line)
    assert all(line.startswith("eval: 0/2 still reading prompts") for line in lines[:reading])
    lines, first = lines[reading:], first - reading
    told = [re.fullmatch(r"eval: 0/2 ([\d,]+) tokens written, \d+ a second(: .+)?", line) for line in lines[:first]]
    assert len(told) > 1 and all(told), lines
    counts = [int(one[1].replace(",", "")) for one in told]
    assert counts == sorted(counts) and 0 < counts[-1] <= 2 * 64 * 96
    assert re.fullmatch(r": up to \d+ (s|minutes) if every solution takes its 96 tokens", told[-1][2])
    assert not any("tokens written" in line for line in lines[first:])
    assert lines[first].startswith("eval: 1/2 ") and "tokens/s" not in lines[first], "the other's are not counted yet"
    assert "tokens/s" in next(line for line in lines if line.startswith("eval: 2/2 "))
    assert " s left" not in "".join(lines[:first]), "there is nothing yet to reckon it by"
    assert re.search(r"solve: [\d,]+ tokens written, \d+ a second", inside("solve", "--mini", 0, *words).err)


def test_what_an_ended_search_wrote_stays_counted_when_its_engine_forgets_it():
    written = {"a": 30, "b": 20}
    engine = SimpleNamespace(usage=lambda tree: Usage(sampled_tokens=written[tree]))
    writer = SimpleNamespace(engines={"model": engine})
    settings = SimpleNamespace(writer="arbitrage", lookahead=0)
    beat = pulse.Pulse(SimpleNamespace(settings=settings, driver=SimpleNamespace(writer=writer)), 2, print)

    async def watched():
        for name in ("a", "b"):
            beat.watch(SimpleNamespace(tree=SimpleNamespace(id=name)))
        beat.stop()

    asyncio.run(watched())
    assert beat.note(2.0) == "50 tokens written, 25 a second"
    written.update(a=0, b=40)
    assert beat.note(2.0) == "70 tokens written, 35 a second"


def pulse_of(uses, *, num_problems=4):
    """A pulse over two trees, of each of which a pair of tokens written and computed is read off `uses`."""
    engine = SimpleNamespace(usage=lambda tree: Usage(sampled_tokens=uses[tree][0], computed_tokens=uses[tree][1]))
    settings = SimpleNamespace(writer="model", lookahead=0, width=4, max_tokens=100)
    driver = SimpleNamespace(writer=SimpleNamespace(engines={"model": engine}))
    beat = pulse.Pulse(SimpleNamespace(settings=settings, driver=driver), num_problems, print)

    async def watched():
        for name in uses:
            beat.watch(SimpleNamespace(tree=SimpleNamespace(id=name)))
        beat.stop()

    asyncio.run(watched())
    return beat


def test_no_time_is_reckoned_while_prompts_are_read():
    """At ten seconds 466 minutes were said of a run that took 40: its prompts were still being read."""
    uses = {"a": (0, 500), "b": (0, 0)}
    beat = pulse_of(uses)
    assert beat.note(5.0) == "still reading prompts"
    uses.update(a=(4, 504), b=(0, 300))
    assert beat.note(10.0) == "still reading prompts, 4 tokens written"
    uses.update(a=(8, 508), b=(4, 504))
    assert beat.note(15.0) == "still reading prompts, 12 tokens written"
    told = []
    for look in range(3):
        uses.update(a=(28 + 20 * look, 528 + 20 * look), b=(24 + 20 * look, 524 + 20 * look))
        told.append(beat.note(20.0 + 5 * look))
    assert told[:2] == ["52 tokens written, 8 a second", "92 tokens written, 8 a second"]
    assert told[2] == "132 tokens written, 8 a second: up to 3 minutes if every solution takes its 100 tokens"
    assert beat.note(35.0).startswith("132 tokens written, 6 a second: up to 4 minutes")


def test_a_tree_that_waits_for_its_turn_keeps_nothing_from_being_reckoned():
    uses = {"a": (20, 25), "b": (0, 0)}
    beat, told = pulse_of(uses), ""
    for look in range(1, 4):
        uses["a"] = (20 * look, 5 + 20 * look)
        told = beat.note(5.0 * look)
    assert told == "60 tokens written, 4 a second: up to 6 minutes if every solution takes its 100 tokens"


def test_on_a_terminal_the_time_left_is_blank_or_a_time(monkeypatch):
    seen, clock = io.StringIO(), [0.0]
    seen.isatty = lambda: True
    monkeypatch.setattr(show.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with show.progress("eval", 10, done=2, beside=4) as bar:
        bar(2, "up to 3 minutes")
        clock[0] = 100.0
        bar(3, "accuracy 1.000")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.getvalue())
    assert "-:--:--" not in text and "3/10 0:02:47 left accuracy 1.000" in text


@pytest.mark.parametrize("done", [0, 10])
def test_nothing_is_said_before_there_is_something(monkeypatch, done):
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", seen)
    with show.progress("eval", 10, done=done):
        pass
    assert seen.getvalue() == ""
