"""`ets router train` and `eval`: a learned router's weights, loaded, trained by arbitrage, and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import ConfigError
from search.setup.registry import prm_config
from search.setup.routing import router_config
from search.support.extras import install
from search.support.files import filled_folder

if TYPE_CHECKING:
    from arbitrage.reading import RouterConfig, RouterReader
    from arbitrage.training import RouterModel, RouterTraining, TrainOutcome, TrainPoint
    from arbitrage.walks import Walk
    from search.protocols import Tokenizer

TRAINING_FILE = "training.json"


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
    from search.engines.huggingface.reward_head import read_head
    from search.learning.trainable import load_trainable, read_tokenizer
    from search.setup.routing import router_reader

    loaded = load_trainable(name, device, trust=trust, headed=True)
    network = loaded.network.eval()
    head = read_head(name, sorted(loaded.folder.glob("*.safetensors")))
    head = _label_head(network, config, loaded.tokenizer) if head is None else head
    model = RouterModel(network.base_model, made_head(head).float().to(network.device), config.classes)
    reader = router_reader(config, loaded.tokenizer, read_tokenizer(tree_model, trust=trust)[1])
    return RouterParts(model, reader, config, loaded.raw_tokenizer, network)


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
    config = parts.network.config.to_diff_dict()
    kind = type(parts.network).__name__.removesuffix("ForCausalLM")
    config |= {
        "architectures": [f"{kind}ForSequenceClassification"],
        "model_type": parts.network.config.model_type,
        "num_labels": num_outputs(parts.config.classes),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    config.pop("dtype", None)
    with filled_folder(folder, CONFIG_FILE) as partial:
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in tensors.items()}
        save_file(weights, str(partial / "model.safetensors"), metadata={"format": "pt"})
        (partial / "model.safetensors").chmod(0o644)
        parts.raw_tokenizer.save_pretrained(partial)
        (partial / TRAINING_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (partial / CONFIG_FILE).write_text(parts.config.to_json(), encoding="utf-8")


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
