"""The Triton kernels, interpreted, against dense attention on random page tables; and compiled for a GPU."""

import importlib
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest
import torch

from search.engines.local.paged_attention import Jobs, reference
from search.engines.local.paged_plan import Reader, job_width, make_plan

NAME = "search.engines.local.paged_kernel"


@pytest.fixture(scope="module")
def kernel():
    """Interpreted, as tests/conftest.py has it: whether a kernel is, is settled when its module is imported."""
    return importlib.import_module(NAME).kernel


def paths(lengths, shared, slots):
    """Readers whose paths have these lengths, the first `shared` slots being the same for all that are long enough."""
    common, at = slots[:shared], shared
    readers, seen = [], []
    for row, length in enumerate(lengths):
        joins = shared and length > shared
        own = slots[at : at + length - (shared if joins else 0)]
        at += len(own)
        readers.append(Reader(row, 1, [common] if joins else [], own, len(own)))
        seen.append(np.concatenate([common, own]) if joins else own)
    return readers, seen


def dense(query, key, value, seen, scale):
    """Each query over its own slots, in float64."""
    group = query.shape[1] // key.shape[1]
    out = []
    for one, slots in zip(query.double(), seen, strict=True):
        k, v = (x.double()[slots].repeat_interleave(group, 1) for x in (key, value))
        out.append(torch.einsum("hk,khd->hd", torch.einsum("hd,khd->hk", one * scale, k).softmax(-1), v))
    return torch.stack(out)


@pytest.mark.parametrize(
    ("lengths", "shared", "heads", "kv_heads", "dim"),
    [
        ([1, 2, 31, 33, 257], 0, 4, 2, 64),
        ([40, 41, 97, 3, 300], 39, 6, 2, 128),
        ([70, 66, 65], 64, 3, 1, 80),
        ([4096], 0, 2, 1, 64),
        ([4095, 1], 0, 1, 1, 128),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_equals_dense_attention(kernel, lengths, shared, heads, kv_heads, dim, dtype):
    random = np.random.default_rng(sum(lengths) + dim)
    num_slots = 2 * sum(lengths)
    readers, seen = paths(lengths, shared, random.permutation(num_slots).astype(np.int32))
    # A chunk of a prompt beside them: each of its tokens sees one more.
    chunk = random.permutation(num_slots)[:20].astype(np.int32)
    readers.append(Reader(len(lengths), 20, [], chunk, 1))
    seen += [chunk[: i + 1] for i in range(20)]
    plan = make_plan(readers, job_width(heads, kv_heads))
    jobs = Jobs(*(torch.from_numpy(np.ascontiguousarray(one)) for one in plan), most_keys=int(plan.lengths.max()))
    torch.manual_seed(dim)
    query, key, value = (
        torch.randn(num, count, dim).to(dtype)
        for num, count in ((len(seen), heads), (num_slots, kv_heads), (num_slots, kv_heads))
    )
    # As a model gives it: heads first.
    query = query.transpose(0, 1).contiguous().transpose(0, 1)
    wanted = dense(query, key, value, seen, dim**-0.5)
    found = kernel(query, key, value, jobs, dim**-0.5, torch.float32)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-3
    assert float((found - wanted).abs().max()) < tolerance
    if len(lengths) == 3:
        # The interpreter cuts what a GPU rounds: one digit more.
        rounded = kernel(query, key, value, jobs, dim**-0.5)
        assert rounded.dtype == dtype
        assert torch.allclose(rounded.float(), found, rtol=torch.finfo(dtype).eps, atol=1e-6)
    plain = reference(query.float(), key.float(), value.float(), jobs, dim**-0.5)
    assert float((plain - wanted).abs().max()) < 1e-5, "the same is what stands in for it on a CPU"


COMPILE = """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from search.engines.local import paged_kernel

    def shared_bytes(function, types, capability, **constants):
        names = function.arg_names
        kinds = {name: types.get(name, "constexpr" if name in constants else "i32") for name in names}
        aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if kinds[name].startswith("*")}
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=function, signature=kinds, constexprs=values, attrs=aligned)
        made = compile(source, target=GPUTarget("cuda", capability, 32))
        assert "mma" in made.asm["ptx"] or function is paged_kernel._merge
        return made.metadata.shared

    arrays = dict.fromkeys(("slots", "first", "lengths", "queries", "limits", "parts"), "*i32")
    model = dict.fromkeys(("query", "key", "value", "merged"), "*bf16")
    types = {**arrays, **model, "out": "*fp32", "lse": "*fp32", "scale": "fp32"}
    sizes = dict(dim=128, padded=128)
    jobs = dict(group=4, width=16, rows=64, num_keys=paged_kernel._KEYS, precision="tf32")
    print(shared_bytes(paged_kernel._attend, types, 80, **jobs, **sizes))
    print(shared_bytes(paged_kernel._merge, types, 80, at_once=paged_kernel._PARTS, **sizes))
"""


def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    """For an A100, whose smaller sisters (RTX 30) have 99 KB of shared memory a block."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(COMPILE)],
        env={"TRITON_CACHE_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(int(number) < 99 * 1024 for number in done.stdout.split())
