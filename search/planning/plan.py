"""What searches will take, before they run: memory from the models' shapes, work from ratios that were measured."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from search.errors import ConfigError
from search.planning.model_shape import ModelShape
from search.planning.work_ratios import Lengths, WorkRatios
from search.support.tables import Table

GIB = 1 << 30

KEPT_FREE = 0.1
"""The part of a GPU's memory that is left for activations and for what else is on it."""

EFFICIENCY = 0.6
"""Of a device's memory bandwidth and of its arithmetic that a good engine reaches."""


@dataclass(frozen=True, slots=True)
class Device:
    """What models run on.

    Attributes:
        name: as given.
        gib: its memory; None: not known, and so is what fits.
        bandwidth: of its memory, in 10^9 bytes a second; None: not known, and so are times.
        teraflops: of dense arithmetic in bfloat16.
        like: the known device whose speed is taken, where only the memory was said.
    """

    name: str
    gib: float | None
    bandwidth: float | None = None
    teraflops: float | None = None
    like: str = ""


DEVICES = {
    "t4": Device("t4", 16, 320, 65),
    "l4": Device("l4", 24, 300, 121),
    "rtx4090": Device("rtx4090", 24, 1008, 165),
    "a100-40": Device("a100-40", 40, 1555, 312),
    "l40s": Device("l40s", 48, 864, 362),
    "a100": Device("a100", 80, 2039, 312),
    "h100": Device("h100", 80, 3350, 989),
    "h200": Device("h200", 141, 4800, 989),
}
"""Makers' figures."""


def read_device(text: str) -> Device:
    """A device by name, or by its memory alone: "80GB" is the slowest of the known ones that has as much.

    Raises:
        ConfigError: neither.
    """
    if text.lower() in DEVICES:
        return DEVICES[text.lower()]
    number = text.lower().removesuffix("gib").removesuffix("gb").strip()
    try:
        gib = float(number)
    except ValueError:
        gib = math.nan
    if not 0 < gib <= 1e6:
        raise ConfigError(f"gpu {text!r}: accepted: its memory, e.g. 80GB, or one of {', '.join(DEVICES)}")
    like = [one for one in DEVICES.values() if one.gib == gib]
    slowest = min(like, key=lambda one: one.bandwidth or 0, default=None)
    return Device(text, gib) if slowest is None else replace(slowest, name=text, like=slowest.name)


@dataclass(frozen=True, slots=True)
class Plan:
    """What searches of one method and width take.

    Attributes:
        policy, prm: the models; None: no reward model.
        dtype: of weights and KV.
        method, width: of the search.
        lengths: tokens of prompts and solutions.
        ratios: its work.
        device: what all of it runs on; None: not said.
        num_problems: to be searched.
        concurrency: problems side by side.
        spread: half of the 95% interval of the KV tokens, as a share of them; None: not known.
        tokens_per_second: that a run of one's own wrote; None: there is none, or it does not tell.
    """

    policy: ModelShape
    prm: ModelShape | None
    dtype: str
    method: str
    width: int
    lengths: Lengths
    ratios: WorkRatios
    device: Device | None = None
    num_problems: int = 1
    concurrency: int = 1
    spread: float | None = None
    tokens_per_second: float | None = None

    @property
    def kv_tokens(self) -> int:
        """KV slots that the policy's engine holds for one problem at its peak."""
        return round(self.lengths.prompt + self.ratios.kv * self._unit)

    @property
    def kv_tokens_interval(self) -> tuple[int, int] | None:
        """The 95% interval of their mean over problems as those that were measured; None where it is not known."""
        if self.spread is None:
            return None
        return max(0, round(self.kv_tokens * (1 - self.spread))), round(self.kv_tokens * (1 + self.spread))

    @property
    def prm_kv_tokens(self) -> int:
        """The same of the reward model's engine."""
        return 0 if self.prm is None else round(self.lengths.prompt + self.ratios.prm_kv * self._unit)

    @property
    def kv_bytes(self) -> int:
        """Of both models' caches for one problem at its peak."""
        prm = 0 if self.prm is None else self.prm_kv_tokens * self.prm.kv_bytes(self.dtype)
        return self.kv_tokens * self.policy.kv_bytes(self.dtype) + prm

    @property
    def weight_bytes(self) -> int:
        """Of both models; a policy that is its own critic is loaded once."""
        models = {model.name: model for model in (self.policy, self.prm) if model is not None}
        return sum(model.weight_bytes(self.dtype) for model in models.values())

    @property
    def written_tokens(self) -> int:
        """Tokens that the policy writes for one problem."""
        return round(self.ratios.written * self._unit)

    @property
    def read_tokens(self) -> int:
        """Positions that the reward model reads for one problem."""
        return 0 if self.prm is None else round(self.lengths.prompt + self.ratios.read * self._unit)

    @property
    def fitting(self) -> int | None:
        """Problems whose caches fit on the device beside the weights; None without a device whose memory is known."""
        if self.device is None or self.device.gib is None:
            return None
        free = self.device.gib * GIB * (1 - KEPT_FREE) - self.weight_bytes
        return max(0, int(free // self.kv_bytes))

    @property
    def seconds(self) -> float | None:
        """Of all problems, so many side by side as are asked for and fit; None where the device's speed is not known.

        A token step reads the weights and the caches once, and computes for every row; the slower of both counts. The
        reward model's positions are arithmetic alone.
        """
        device, fitting = self.device, self.fitting
        if device is None or device.bandwidth is None or device.teraflops is None or fitting == 0:
            return None
        beside = min(self.concurrency, self.num_problems, self.num_problems if fitting is None else fitting)
        steps = self.ratios.token_steps * self.lengths.solution
        rows = beside * self.written_tokens / steps
        moved = self.policy.weight_bytes(self.dtype) + beside * self.kv_tokens * self.policy.kv_bytes(self.dtype) / 2
        computed = 2 * self.policy.num_parameters * rows
        step = max(moved / (device.bandwidth * 1e9), computed / (device.teraflops * 1e12)) / EFFICIENCY
        judged = 0.0
        if self.prm is not None:
            judged = 2 * self.prm.num_parameters * self.read_tokens * beside / (device.teraflops * 1e12 * EFFICIENCY)
        return math.ceil(self.num_problems / beside) * (steps * step + judged)

    @property
    def seconds_as_run(self) -> float | None:
        """Of all problems, where tokens are written as fast as in a run of one's own; None without one."""
        rate = self.tokens_per_second
        return None if rate is None else self.num_problems * self.written_tokens / rate

    @property
    def _unit(self) -> float:
        return self.width * self.lengths.solution

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain values."""
        return {
            **{name: getattr(self, name) for name in ("dtype", "method", "width", "num_problems", "concurrency")},
            "policy": asdict(self.policy),
            "prm": None if self.prm is None else asdict(self.prm),
            "prompt_tokens": self.lengths.prompt,
            "solution_tokens": self.lengths.solution,
            "ratios": asdict(self.ratios),
            "weight_bytes": self.weight_bytes,
            "kv_bytes_per_token": self.policy.kv_bytes(self.dtype),
            "kv_tokens": self.kv_tokens,
            "kv_tokens_interval": self.kv_tokens_interval,
            "prm_kv_tokens": self.prm_kv_tokens,
            "kv_bytes": self.kv_bytes,
            "written_tokens": self.written_tokens,
            "read_tokens": self.read_tokens,
            "device": None if self.device is None else asdict(self.device),
            "problems_that_fit": self.fitting,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "seconds_as_run": self.seconds_as_run,
        }

    def table(self, source: str) -> Table:
        """For a person to read; `source` says where the ratios are from."""
        rows: list[tuple[str, str]] = []
        for role, model in (("policy", self.policy), ("reward model", self.prm)):
            if model is not None:
                size = f"{model.num_parameters / 1e9:.3g} billion parameters, {_size(model.weight_bytes(self.dtype))}"
                rows.append((role, f"{model.name}: {size}; KV {_size(model.kv_bytes(self.dtype))} a token"))
        interval = self.kv_tokens_interval
        within = "" if interval is None else " ({:,} to {:,})".format(*interval)
        rows += [
            ("KV tokens of a problem, at its peak", f"{self.kv_tokens:,}{within}"),
            ("KV cache of a problem, at its peak", _size(self.kv_bytes)),
            ("tokens written for a problem", f"{self.written_tokens:,}"),
        ]
        if self.prm is not None:
            rows.append(("positions read by the reward model", f"{self.read_tokens:,}"))
        total = self.weight_bytes + self.concurrency * self.kv_bytes
        rows.append((f"weights and KV, {self.concurrency} side by side", _size(total)))
        notes = [f"Ratios: {source}. {self.dtype}; prompts of {self.lengths.prompt:.0f} tokens, solutions of "
                 f"{self.lengths.solution:.0f} in {self.ratios.steps:.2g} steps. Chains that share nothing would hold "
                 f"{self.lengths.prompt + self._unit:,.0f} KV tokens."]  # fmt: skip
        if self.dtype == "bfloat16":
            notes.append("bfloat16 is what ets eval --dtype bfloat16 takes; its default, float32, is twice as large.")
        time_of = f"time of {self.num_problems:,} problem{'s' * (self.num_problems != 1)}"
        if (seconds := self.seconds_as_run) is not None:
            told = f"about {_time(seconds)} at your run's {self.tokens_per_second:.3g} tokens/s"
            rows.append((f"{time_of}, where it ran", told))
        elif self.device is None:
            notes.append("Time: a run of your own tells it (--from), or --gpu, or --bandwidth and --tflops.")
        if self.device is not None:
            fitting = 1 if self.fitting is None else self.fitting
            fits = f"{fitting:,} problems side by side" if fitting else "not one problem: too little memory"
            if self.device.gib is not None:
                rows.append((f"fit into {self.device.name}", fits))
            if (seconds := self.seconds) is not None:
                like = self.device.like
                rows.append((time_of, f"if it is as fast as {like}: " * bool(like) + f"about {_time(seconds)}"))
                notes.append(
                    f"Time: {self.device.bandwidth:g} GB/s and {self.device.teraflops:g} TFLOPS, {EFFICIENCY:.0%} of "
                    "them reached: a bound of the hardware, which real servers miss by a factor of up to two."
                    + f" They are {like}'s: --gpu NAME, or --bandwidth and --tflops, say another."
                    * bool(like)
                )
            elif fitting:
                notes.append("Time: this device's speed is not known; --bandwidth and --tflops say it.")
        return Table("plan", f"{self.method} at width {self.width}", ("what", "how much"), tuple(rows), tuple(notes))


def _size(num_bytes: float) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def _time(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} seconds"
