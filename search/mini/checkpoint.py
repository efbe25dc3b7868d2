"""Mini models in the plain Hugging Face layout: written in bf16, read back in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from search.errors import DataError
from search.mini.model import MiniModel, ModelShape
from search.mini.tokenizer import EOS_TOKEN, PAD_TOKEN, save_tokenizer, token_id
from search.support.files import filled_folder, write_atomic


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as indented JSON, atomically."""
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def save_model(model: MiniModel, folder: Path) -> None:
    """Write configuration, weights (bf16) and tokenizer into a folder, made where it does not exist."""
    from safetensors.torch import save_file

    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    with filled_folder(folder, "model.safetensors") as partial:
        write_json(partial / "config.json", model.shape.config())
        write_json(
            partial / "generation_config.json",
            {
                "do_sample": True,
                "temperature": 1.0,
                "eos_token_id": token_id(EOS_TOKEN),
                "pad_token_id": token_id(PAD_TOKEN),
            },
        )
        save_file(weights, str(partial / "model.safetensors"), metadata={"format": "pt"})
        (partial / "model.safetensors").chmod(0o644)
        save_tokenizer(partial)


def load_model(folder: Path) -> MiniModel:
    """Read a mini model back, in float32 on the CPU.

    Raises:
        DataError: if a file is missing, broken or not of a mini model.
    """
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(str(folder / "model.safetensors"))
        shape = ModelShape(
            config["vocab_size"],
            config["num_hidden_layers"],
            config["hidden_size"],
            config["num_attention_heads"],
            config["intermediate_size"],
        )
        model = MiniModel(shape)
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except Exception as error:
        raise DataError(f"{folder}: not a mini checkpoint that can be read: {error}") from error
    model.eval()  # type: ignore[no-untyped-call]
    return model
