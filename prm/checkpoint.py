"""What a reward model's files say of it, read without loading a weight: plain JSON and the headers of safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from search.checkpoints.gguf import is_gguf, read_gguf
from search.errors import ConfigError, first_line

CONFIG_FILE = "prm_config.json"
HEAD_PREFIXES = ("score.", "v_head.", "pretrained_model.v_head.")
CONVERT_HINT = (
    'convert it once, in its folder: python -c "import torch, safetensors.torch as s; s.save_file({k: v.clone() '
    "for k, v in torch.load('pytorch_model.bin', weights_only=True).items()}, 'model.safetensors', "
    "{'format': 'pt'})\""
)
_KEYS = {"reduce": "reduce_in_search"}
"""Fields of `PrmConfig` that have another name in `prm_config.json`."""

_NOTES = frozenset({"read_at", "labels"})
"""Keys that say nothing that is not the codec's own, or that are for people."""


@dataclass(frozen=True, slots=True)
class PrmConfig:
    """How a reward model is read; see `prm.detect` for how it is found out.

    Attributes:
        codec: the family of reading.
        reason: why it was taken, in plain words.
        good_token, bad_token: the labels.
        step_tag: text that marks a step's end, where the family lets it be chosen.
        reduce: how its step rewards become a path's: "last" for rewards that judge the path so far.
        shares_ids: whether the policy's own ids may be read where the tokenizers are equal.
        prompt: "plain" or "chat", for label tokens.
        step_end: text that ends each step, for label tokens.
        bos_token: what the tokenizer puts before every text; empty for nothing.
    """

    codec: str = "label-tokens"
    reason: str = ""
    good_token: Annotated[str, Field(min_length=1)] = "+"
    bad_token: Annotated[str, Field(min_length=1)] = "-"
    step_tag: str = ""
    reduce: Literal["last", "min", "mean", "prod"] = "last"
    shares_ids: bool = True
    prompt: Literal["plain", "chat"] = "plain"
    step_end: str = ""
    bos_token: str = ""

    def to_file(self) -> dict[str, object]:
        """As `prm_config.json` says it."""
        return {_KEYS.get(name, name): value for name, value in asdict(self).items() if name != "reason"}

    @classmethod
    def from_file(cls, content: Mapping[str, Any], where: Path) -> Self:
        """What a `prm_config.json` says.

        Raises:
            ConfigError: a key that is not known, or a value that is not accepted; says which.
        """
        accepted = {_KEYS.get(name, name): name for name in get_type_hints(cls) if name != "reason"}
        kinds, values = get_type_hints(cls, include_extras=True), {}
        for key, value in content.items():
            if key in _NOTES:
                continue
            if key not in accepted:
                names = [*accepted, *sorted(_NOTES)]
                raise ConfigError(f"{where}: unknown key {key!r}; known: {', '.join(names)}")
            try:
                values[accepted[key]] = TypeAdapter(kinds[accepted[key]]).validate_python(value, strict=True)
            except ValidationError:
                raise ConfigError(f"{where}: {key} = {value!r} is not accepted") from None
        return cls(reason=f"{where.name} says so", **values)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The facts by which a family is recognised.

    Attributes:
        name: what the user called it.
        architectures: as in config.json.
        origin: the name it was saved under, where config.json keeps it.
        special_tokens: the tokenizer's added tokens.
        bos_token: what the tokenizer puts before every text, or would; empty for nothing.
        adds_bos: whether it does so by itself.
        head: shapes of the reward head's tensors by name; empty without one.
        prm_config: the content of prm_config.json; None where there is none.
    """

    name: str
    architectures: tuple[str, ...] = ()
    origin: str = ""
    special_tokens: frozenset[str] = frozenset()
    bos_token: str = ""
    adds_bos: bool = True
    head: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    prm_config: Mapping[str, Any] | None = None

    @property
    def kind(self) -> str:
        """Its architectures, for a person."""
        return ", ".join(self.architectures) or "checkpoint without architecture"

    @property
    def head_names(self) -> str:
        """The tensors of its reward head, for a person; empty without one."""
        return ", ".join(sorted(self.head))

    @property
    def num_head_outputs(self) -> int:
        """Number of outputs of its reward head; 0 without one."""
        weights = sorted(key for key, shape in self.head.items() if len(shape) == 2)
        return self.head[weights[-1]][0] if weights else 0

    def called(self, *names: tuple[str, ...]) -> bool:
        """Whether its name, and its folder's or owner's, has all of one of these sets of words."""
        name = "/".join(Path(self.name).parts[-2:]).lower()
        return any(all(word in name for word in words) for words in names)

    def by_name(self, *names: tuple[str, ...]) -> str:
        """Why its name says that it is a reward model; empty where its name has not all of one of these sets of words.

        Label-token models are ordinary causal models to all appearance, and policies are published beside them.
        """
        if self.head or not self.called(*names):
            return ""
        return f"a {self.kind} without a reward head, by its name {self.name!r}"


def read_checkpoint(name: str, folder: Path) -> Checkpoint:
    """Read the facts of a checkpoint.

    A .gguf file has no head, and says its family in a prm_config.json beside it alone.

    Raises:
        ConfigError: a file is missing, broken or cut short.
    """
    if is_gguf(folder):
        file = read_gguf(name, folder)
        adds_bos = file.metadata.get("tokenizer.ggml.add_bos_token") is not False
        beside = _json(name, folder.with_name(CONFIG_FILE))
        return Checkpoint(name, (), "", file.added_tokens(), file.token("bos"), adds_bos, prm_config=beside)
    config = _json(name, folder / "config.json")
    if config is None:
        raise ConfigError(f"model {name!r} has no config.json in {folder}")
    tokenizer = _json(name, folder / "tokenizer_config.json") or {}
    declared = {**(_json(name, folder / "special_tokens_map.json") or {}), **tokenizer}
    listed = (_json(name, folder / "tokenizer.json") or {}).get("added_tokens") or []
    tokens = {_content(token) for token in [*listed, *(tokenizer.get("added_tokens_decoder") or {}).values()]}
    return Checkpoint(
        name,
        tuple(str(architecture) for architecture in config.get("architectures") or ()),
        str(config.get("_name_or_path") or ""),
        frozenset(tokens - {""}),
        _content(declared.get("bos_token")),
        declared.get("add_bos_token") is not False,
        {key: shape for key, shape in tensor_shapes(name, folder).items() if key.startswith(HEAD_PREFIXES)},
        _json(name, folder / CONFIG_FILE),
    )


def tensor_shapes(name: str, folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a safetensors checkpoint, by name.

    Raises:
        ConfigError: there are no such files, or one is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"model {name!r} has no safetensors weights in {folder}; other formats are not read, {CONVERT_HINT}"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            # Its header alone is read, its length held against what that promises.
            with safe_open(file, framework="np") as opened:
                shapes |= {key: tuple(opened.get_slice(key).get_shape()) for key in list(opened.keys())}
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"model {name!r}: {file.name} is damaged or cut short: {first_line(error)}") from None
    return shapes


def _json(name: str, file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {name!r}: {file.name} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"model {name!r}: {file.name} must hold an object")
    return content


def _content(token: object) -> str:
    """A token's text, written plainly or as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""
