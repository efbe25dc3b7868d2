"""What the local engine does on a GPU, as one JSON object; see check.sh."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from search import Failure, Problem, Search
from search.engines.local import LocalEngine
from search.engines.local.paged_attention import Jobs, best_paged
from search.engines.local.paged_plan import Reader, job_width, make_plan
from search.mini.problems import problems
from search.setup.registry import model_path
from search.studies.model_engine import measure
from search.studies.turns import ops_per_turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="mini:target", help="a checkpoint by path or hub id")
    parser.add_argument("--prm", help="what scores its steps; default: mini:prm, or its own confidence")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the checkpoint")
    parser.add_argument("--small", action="store_true", help="every part in small")
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.exit(2, "no CUDA device can be used here; --device cpu --small runs the same in small\n")
    prm = asked.prm or ("mini:prm" if asked.policy.startswith("mini:") else "confidence:mean-logprob")
    device, small = asked.device, asked.small
    found: dict[str, Any] = {"check": "gpu", "policy": asked.policy, "prm": prm, "dtype": asked.dtype, "small": small}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "machine": lambda: machine(device),
        "kernel": lambda: kernel(device),
        "exactness": lambda: exactness(device, 2 if small else 20),
        "ops_per_turn": lambda: ops_per_turn(model_path("mini:target"), 0, (1, 4) if small else (1, 16, 64)),
        "throughput": lambda: throughput(asked.policy, asked.dtype, device, small),
        "searches": lambda: searches(asked.policy, prm, asked.dtype, device, 2 if small else 20),
        "memory": lambda: memory(device),
    }
    for name, part in parts.items():
        start = time.perf_counter()
        found[name] = part()
        sys.stderr.write(f"{name}: {time.perf_counter() - start:.0f} s\n")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def machine(device: str) -> dict[str, Any]:
    """What this runs on."""
    packages = {}
    for name in ("torch", "triton", "transformers"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    on_gpu = device.startswith("cuda")
    return {"device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu", **packages}


def kernel(device: str) -> dict[str, Any]:
    """The greatest error of attention over a pool, against float64 on the same numbers, for shared and lone paths."""
    attention = best_paged(torch.device(device))
    errors: dict[str, Any] = {"attention": attention.__name__}
    random = np.random.default_rng(0)
    for dtype in (torch.float32, torch.bfloat16):
        worst = 0.0
        for heads, kv_heads, dim, lengths in (
            (4, 2, 64, (1, 2, 700)),
            (12, 2, 128, (129, 300, 4096)),
            (9, 3, 64, (64,)),
        ):
            slots = random.permutation(2 * sum(lengths) + 400).astype(np.int32)
            shared, at = slots[:300], 300
            readers, seen = [], []
            for row, length in enumerate(lengths):
                own, at = slots[at : at + length], at + length
                readers.append(Reader(row, 1, [shared], own, length))
                seen.append(np.concatenate([shared, own]))
            plan = make_plan(readers, job_width(heads, kv_heads))
            arrays = (torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in plan)
            jobs = Jobs(*arrays, most_keys=int(plan.lengths.max()))
            query = torch.randn(len(lengths), heads, dim).to(dtype)
            key, value = (torch.randn(len(slots), kv_heads, dim).to(dtype) for _ in range(2))
            out = attention(query.to(device), key.to(device), value.to(device), jobs, dim**-0.5).cpu().double()
            for row, mine in enumerate(seen):
                k, v = (x[mine].double().repeat_interleave(heads // kv_heads, 1) for x in (key, value))
                scores = torch.einsum("hd,khd->hk", query[row].double(), k) * dim**-0.5
                wanted = torch.einsum("hk,khd->hd", scores.softmax(-1), v)
                worst = max(worst, float((out[row] - wanted).abs().max()))
        errors[str(dtype).removeprefix("torch.")] = worst
    return errors


def exactness(device: str, num_problems: int) -> dict[str, Any]:
    """Searches of the mini family in float32: every node over a pool on the device as over arenas on the CPU."""

    def solved(where: str, attention: str) -> dict[str, tuple[Any, str | None]]:
        loaded = [
            LocalEngine.load(model_path(f"mini:{role}"), device=where, attention=attention)
            for role in ("target", "prm")
        ]
        with Search(method="rebase", width=8, engine="local", seed=3) as search:
            search.use(*loaded)
            results = {one.problem.id: one for one in search.solve_many(asked_problems(num_problems), concurrency=8)}
        assert not any(isinstance(one, Failure) for one in results.values()), results
        return {name: ([node.ids for node in one.tree], one.answer) for name, one in results.items()}

    wanted, found = solved("cpu", "cascade"), solved(device, "paged")
    pairs = [(nodes, found[name][0]) for name, (nodes, _) in wanted.items()]
    return {
        "problems": num_problems,
        "nodes": sum(len(nodes) for nodes, _ in pairs),
        "same_nodes": sum(a == b for ours, theirs in pairs for a, b in zip(ours, theirs, strict=False)),
        "same_trees": sum(ours == theirs for ours, theirs in pairs),
        "same_answers": sum(answer == found[name][1] for name, (_, answer) in wanted.items()),
    }


def asked_problems(number: int) -> list[Problem]:
    """Problems of the mini family's test set."""
    return [Problem(one.id, one.text, one.answer) for one in problems("test", number)]


def throughput(policy: str, dtype: str, device: str, small: bool) -> dict[str, Any]:
    """Flat and in trees against `transformers.generate`: turns launched as a whole, and some kernel by kernel."""
    full: dict[str, Any] = {"rows": (4,), "num_problems": (1,)} if small else {"rows": (8, 16, 64)}
    part: dict[str, Any] = {"rows": (4 if small else 16,), "num_problems": (1,)}
    common: dict[str, Any] = {"repeats": 1, "seed": 0, "device": device, "attention": "paged"}
    return {
        "graphs": measure(policy, dtype, **full, **common)["figures"],
        "no_graphs": measure(policy, dtype, **part, **common, graphs=False)["figures"],
    }


def searches(policy: str, prm: str, dtype: str, device: str, num_problems: int) -> dict[str, Any]:
    """ETS and REBASE at width 16 on problems of the mini family, all at once."""
    found = {}
    for method in ("rebase", "ets"):
        with Search(policy, prm, method, 16, engine="local", device=device, dtype=dtype, until="spent") as search:
            _ = search.driver  # loading is not counted
            start = time.perf_counter()
            results = list(search.solve_many(asked_problems(num_problems), concurrency=num_problems))
            seconds = time.perf_counter() - start
            done = [one for one in results if not isinstance(one, Failure)]
            tokens = sum(len(node.ids) for one in done for node in one.tree if node.parent is not None)
        found[method] = {
            "failed": len(results) - len(done),
            "right": sum(bool(one.correct) for one in done),
            "seconds": seconds,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "kv_tokens": sum(one.stats.kv_tokens_mean for one in done) / max(1, len(done)),
        }
    return found


def memory(device: str) -> dict[str, Any]:
    """The most that was taken, in MB."""
    if device.startswith("cuda"):
        return {
            "peak_allocated_mb": torch.cuda.max_memory_allocated(device) / 2**20,
            "peak_reserved_mb": torch.cuda.max_memory_reserved(device) / 2**20,
        }
    return {"peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


if __name__ == "__main__":
    main()
