"""`ets router`: the parts of arbitrage's collection, training and evaluation put together on real models."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.answers.graders import PlainGrader
from search.config import SearchSettings, build
from search.data import read_data
from search.errors import ConfigError
from search.extras import install
from search.files import write_atomic
from search.prompts import PromptRenderer
from search.registry import make_engine, make_scorer, model_path, prm_config
from search.routing import prompt_for, router_config
from search.steps import line_end_tokens
from search.types import Problem, Sampling

if TYPE_CHECKING:
    from arbitrage.collect import Collector, Verdict
    from arbitrage.reading import RouterConfig, RouterReader
    from arbitrage.training import RouterModel, RouterTraining, TrainOutcome, TrainPoint
    from arbitrage.walks import Walk
    from search.protocols import Engine, Tokenizer

TRAINING_FILE = "training.json"
PARTIAL = ".partial"
_SMALL_PARAMETERS = 20_000_000
"""Below this one thread is faster than several, as in the local engine."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What is to be collected, and on what.

    Attributes:
        data: problems, as `ets eval --data`.
        field, reference: how its columns are read, and whether it has reference answers, as there.
        limit, skip: problems taken, and left out before them.
        draft, target, prm: models by path, hub id or `mini:ROLE`.
        engines: where they run, in this order.
        temperature, num_samples: of the steps; see `arbitrage.collect.CollectSettings`.
        max_step_tokens, max_tokens, max_depth: limits, as for a search.
        seed: of the run.
        shard_size: problems in one file.
        concurrency: problems side by side.
        device, dtype, trust_remote_code: of local models.
        family: the folder that `mini:ROLE` stands for; None: the shipped one.
    """

    data: str = "mini:train"
    field: str | None = None
    reference: bool = True
    limit: int | None = None
    skip: int = 0
    draft: str = "mini:draft"
    target: str = "mini:target"
    prm: str = "mini:prm"
    engines: tuple[str, str, str] = ("local", "local", "local")
    temperature: float = 0.0
    num_samples: int = 1
    max_step_tokens: int = 256
    max_tokens: int = 1024
    max_depth: int = 25
    seed: int = 0
    shard_size: int = 100
    concurrency: int = 64
    device: str = "cpu"
    dtype: str = "float32"
    trust_remote_code: bool = False
    family: Path | None = None

    def path(self, name: str) -> str:
        """Where a model lies."""
        if self.family is not None and name.startswith("mini:"):
            return str(self.family / name.removeprefix("mini:"))
        return name


def collect_walks(
    wanted: Collection,
    folder: Path,
    report: Callable[[int, str], None] = lambda done, note: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Walk]:
    """Collect walks into a folder; shards that are finished are read back.

    Args:
        wanted: what, and on what.
        folder: of the shards.
        report: told of problems that are done, and a note.
        say: told how the data was read.

    Raises:
        ConfigError: a model or the data is wrong, or the folder holds shards of other settings.
        DataError: a line of the data is broken.
        EngineError, ScoringError: a model could not do its work; finished shards are kept.
    """
    from arbitrage.collect import SETTINGS, collect

    data = read_data(wanted.data, wanted.limit, wanted.skip, wanted.field, wanted.reference)
    if line := data.described(wanted.data):
        say(line)
    origin = {name: getattr(wanted, name) for name in SETTINGS}

    async def run() -> list[Walk]:
        collector, engines = await asyncio.to_thread(_collector, wanted)
        try:
            return await collect(
                collector, data.problems, folder, origin, write_atomic, concurrency=wanted.concurrency, report=report
            )
        finally:
            for engine in engines:
                await engine.aclose()

    return asyncio.run(run())


def _collector(wanted: Collection) -> tuple[Collector, list[Engine]]:
    from arbitrage.collect import Collector, CollectSettings
    from arbitrage.models import ModelView

    settings = build(
        SearchSettings,
        {"prm": wanted.path(wanted.prm), "device": wanted.device, "dtype": wanted.dtype,
         "trust_remote_code": wanted.trust_remote_code},
    )  # fmt: skip
    prm_config(settings.prm, "auto", wanted.engines[2])
    names = [wanted.path(name) for name in (wanted.draft, wanted.target, wanted.prm)]
    draft, target, prm = engines = [
        make_engine(spec, name, settings, None) for spec, name in zip(wanted.engines, names, strict=True)
    ]
    prompts = PromptRenderer(settings, target.tokenizer)
    collector = Collector(
        ModelView(draft, target.tokenizer, prompt_for(settings, draft.tokenizer)),
        ModelView(target, target.tokenizer),
        make_scorer(settings, prm, target.tokenizer),
        CollectSettings(
            Sampling(
                wanted.temperature,
                max_new_tokens=wanted.max_step_tokens,
                line_end_tokens=line_end_tokens(wanted.max_step_tokens),
            ),
            wanted.num_samples,
            wanted.seed,
            wanted.max_tokens,
            wanted.max_depth,
        ),
        prompt=lambda problem: prompts.render(problem.text),
        verdict=step_checker(wanted.data, wanted.skip),
        grade=_grade,
    )
    return collector, engines


def _grade(problem: Problem, text: str) -> bool | None:
    grader = PlainGrader()
    return None if problem.answer is None else grader.correct(grader.extract(text), problem.answer)


def step_checker(data: str, skip: int = 0) -> Verdict | None:
    """The mini family's exact checker for its own problems after the first `skip`; other data has none."""
    if not data.startswith("mini:"):
        return None
    from search.mini.checker import check_steps
    from search.mini.problems import MiniProblem, problems

    split = data.removeprefix("mini:")
    known: dict[str, MiniProblem] = {}
    made = problems(split, 10**12, skip)

    def verdict(problem: Problem, steps: Sequence[str]) -> bool:
        while problem.id not in known:
            one = next(made)
            known[one.id] = one
        return check_steps(known[problem.id], [step.strip("\n") for step in steps]).steps[-1].right

    return verdict


@dataclass(slots=True)
class RouterParts:
    """A learned router in memory, for training and for evaluation in bulk.

    Attributes:
        model: decoder and head.
        reader: what it reads.
        config: what its checkpoint says, or will say.
        raw_tokenizer: of transformers.
        network: the transformers model that holds the decoder.
    """

    model: RouterModel
    reader: RouterReader
    config: RouterConfig
    raw_tokenizer: Any
    network: Any


def new_router(
    base: str, config: Mapping[str, Any], *, device: str, tree_model: str, trust: bool = False
) -> RouterParts:
    """A router that starts from a reward model's weights and says 1 - s_d before it is trained.

    Args:
        base: the reward model: a path, a hub id, or `mini:ROLE`.
        config: the fields of `RouterConfig` but for `reader`.
        device: cpu, cuda, cuda:N.
        tree_model: the model whose ids stand in the walks: the target.
        trust: run code that comes with the checkpoint.

    Raises:
        ConfigError: it is no reward model, or cannot be loaded.
    """
    from arbitrage.reading import RouterConfig
    from arbitrage.training import start_head

    found = prm_config(base)
    reader = {name: value for name, value in asdict(found).items() if name != "reason"}
    made = RouterConfig(**config, reader=reader)
    parts = _load_parts(base, made, device, tree_model, trust, lambda head: start_head(head, made.classes))
    return parts


def load_router(name: str, *, device: str = "cpu", tree_model: str | None = None, trust: bool = False) -> RouterParts:
    """A trained router from its checkpoint.

    Raises:
        ConfigError: it is no router, or cannot be loaded.
    """
    config = router_config(name)
    return _load_parts(name, config, device, tree_model or config.target, trust, lambda head: head)


def _load_parts(
    name: str, config: RouterConfig, device: str, tree_model: str, trust: bool, made_head: Callable[[Any], Any]
) -> RouterParts:
    from arbitrage.training import RouterModel
    from prm.checkpoint import tensor_shapes
    from search.engines.local import heads, loading
    from search.hub import find_model

    torch = loading.import_torch()
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device {device!r} is not one of cpu, cuda, cuda:N") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: no CUDA device can be used here")
    folder = find_model(model_path(name))
    files = sorted(folder.glob("*.safetensors"))
    head = heads.read_head(name, files)
    raw = loading.read_tokenizer(name, folder, trust)
    tensors = frozenset(tensor_shapes(name, folder))
    network = loading.read_weights(
        name, folder, loading.read_config(name, folder, trust, tensors), torch.float32, trust, tensors
    )
    if head is None:
        head = _label_head(network, config, _tokenizer(raw))
    network.to(place).eval()
    if place.type == "cpu" and network.num_parameters() < _SMALL_PARAMETERS:
        torch.set_num_threads(1)
    model = RouterModel(network.base_model, made_head(head).float().to(place), config.classes)
    reader = _reader(config, _tokenizer(raw), tree_model, trust)
    return RouterParts(model, reader, config, raw, network)


def _label_head(network: Any, config: RouterConfig, tokenizer: Tokenizer) -> Any:
    """A head of two outputs, bad and good, from the rows of a label-token model's output embeddings."""
    import torch

    from prm import PrmConfig, codec_of

    good, bad = codec_of(PrmConfig(**config.reader), tokenizer).labels
    rows = network.get_output_embeddings().weight[[bad, good]].detach()
    head = torch.nn.Linear(rows.shape[1], 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(rows)
    return head


def _tokenizer(raw: Any) -> Tokenizer:
    from search.engines.local.stops import TokenBytes
    from search.engines.local.tokenizer import HFTokenizer

    return HFTokenizer(raw, TokenBytes(raw, len(raw)), frozenset())


def _reader(config: RouterConfig, tokenizer: Tokenizer, tree_model: str, trust: bool) -> RouterReader:
    from search.engines.local import loading
    from search.hub import find_model
    from search.routing import router_reader

    folder = find_model(model_path(tree_model))
    return router_reader(config, tokenizer, _tokenizer(loading.read_tokenizer(tree_model, folder, trust)))


def add_lora(parts: RouterParts, rank: int) -> None:
    """Train low-rank additions to the decoder's matrices, and the head, instead of all weights.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ConfigError(f"--lora needs peft: {install('lora')}") from None
    wanted = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear")
    parts.model.decoder = get_peft_model(parts.model.decoder, wanted)


def save_router(parts: RouterParts, folder: Path, record: Mapping[str, Any], *, bfloat16: bool) -> None:
    """Write a router as a Hugging Face checkpoint of a sequence classification, with its configuration and record.

    `router_config.json` comes last, so a folder that has it is whole.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    import torch
    from safetensors.torch import save_file

    from arbitrage.reading import CONFIG_FILE, num_outputs

    decoder = parts.model.decoder
    decoder = decoder.merge_and_unload() if hasattr(decoder, "merge_and_unload") else decoder
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    prefix = parts.network.base_model_prefix
    tensors = {f"{prefix}.{name}": value for name, value in decoder.state_dict().items()}
    tensors |= {f"score.{name}": value for name, value in parts.model.head.state_dict().items()}
    partial = folder / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        config = parts.network.config.to_diff_dict()
        kind = type(parts.network).__name__.removesuffix("ForCausalLM")
        config |= {
            "architectures": [f"{kind}ForSequenceClassification"],
            "model_type": parts.network.config.model_type,
            "num_labels": num_outputs(parts.config.classes),
            "torch_dtype": str(dtype).removeprefix("torch."),
        }
        config.pop("dtype", None)
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in tensors.items()}
        save_file(weights, str(partial / "model.safetensors"), metadata={"format": "pt"})
        (partial / "model.safetensors").chmod(0o644)
        parts.raw_tokenizer.save_pretrained(partial)
        (partial / TRAINING_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for file in partial.iterdir():
            file.replace(folder / file.name)
        partial.rmdir()
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror or error}") from None
    write_atomic(folder / CONFIG_FILE, parts.config.to_json())


def train_router(
    parts: RouterParts,
    walks: Sequence[Walk],
    dev: Sequence[Walk],
    settings: RouterTraining,
    report: Callable[[TrainPoint], None] = lambda point: None,
) -> tuple[TrainOutcome, dict[str, Any]]:
    """Train a router in place; what came of it, and the record that is kept beside its weights."""
    from arbitrage.training import train

    outcome = train(parts.model, parts.reader, walks, dev, settings, report)
    record = {
        "draft": parts.config.draft,
        "target": parts.config.target,
        "prm": parts.config.prm,
        "settings": asdict(settings),
        "num_walks": len(walks),
        "num_pairs": outcome.num_pairs,
        "num_pairs_used": outcome.num_used,
        "share_positive": round(outcome.share_positive, 4),
        "best_step": outcome.best_step,
        "curve": [
            {"step": point.step, "loss": round(point.loss, 4), "dev_auc": round(point.dev_auc, 4)}
            for point in outcome.curve
            if point.dev_auc is not None and point.step
        ],
        "dev_auc_start": outcome.curve[0].dev_auc,
    }
    return outcome, record
