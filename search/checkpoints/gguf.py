"""What a .gguf file says of itself, read without its weights: architecture, tokens, end tokens, quantisation, size."""

from __future__ import annotations

import importlib.util
import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.errors import ConfigError
from search.support.extras import install

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_CONTROL, _USER_DEFINED = 3, 4
_END_TEXTS = frozenset(
    (
        "<|im_end|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|end|>",
        "<end_of_turn>",
        "<|return|>",
        "<|END_OF_TURN_TOKEN|>",
    )
)
"""Control tokens that end a text or a turn: most files name one end token, and a chat ends with another."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of a file.

    Attributes:
        path: the file.
        metadata: its keys and values; an array's as a list.
        types: each tensor's type by its name, as `Q4_K`.
        shapes: each tensor's, rows first.
        places: where each tensor's bytes begin and end in the file.
        quantization: as `Q4_K_M`: what the file calls itself, else the type of most of its bytes.
        num_bytes: the file's size.
        num_parameters: elements of all tensors.
    """

    path: Path
    metadata: Mapping[str, Any]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    places: Mapping[str, tuple[int, int]]
    quantization: str
    num_bytes: int
    num_parameters: int = 0

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it."""
        return str(self.metadata["general.architecture"])

    @property
    def tokens(self) -> list[str]:
        """The vocabulary, by id."""
        return list(self.metadata.get("tokenizer.ggml.tokens", ()))

    def added_tokens(self) -> frozenset[str]:
        """Tokens that no text is split into but by their own name: control tokens, and those that users defined."""
        kinds = self.metadata.get("tokenizer.ggml.token_type", ())
        pairs = zip(self.tokens, kinds, strict=False)
        return frozenset(token for token, kind in pairs if kind in (_CONTROL, _USER_DEFINED))

    def token(self, name: str) -> str:
        """The text of a token that the file names (`bos`, `eos`); empty without one."""
        number, tokens = self.metadata.get(f"tokenizer.ggml.{name}_token_id"), self.tokens
        return tokens[number] if isinstance(number, int) and number < len(tokens) else ""

    def eos_ids(self) -> frozenset[int]:
        """Ids that end a text or a turn: those that the file names, and control tokens known to."""
        named = (self.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
        known = _END_TEXTS & self.added_tokens()
        return frozenset(i for i in named if isinstance(i, int)) | frozenset(
            i for i, token in enumerate(self.tokens) if token in known
        )

    def floats(self, name: str) -> tuple[float, ...]:
        """The numbers of a tensor that is kept as F32."""
        first, last = self.places[name]
        with self.path.open("rb") as source:
            source.seek(first)
            return struct.unpack(f"<{(last - first) // 4}f", source.read(last - first))

    def rows(self, name: str, first: int, last: int) -> Any:
        """Some rows of a tensor as they lie in the file, (last - first, bytes of a row); one of a tensor of one row."""
        import numpy as np

        begin, end = self.places[name]
        num_bytes = (end - begin) // prod(self.shapes[name][:-1])
        # Read, not mapped: mapped pages would count as this process's memory.
        data = np.fromfile(self.path, np.uint8, (last - first) * num_bytes, offset=begin + first * num_bytes)
        return data.reshape(last - first, num_bytes)

    @contextmanager
    def alone(self) -> Iterator[Path]:
        """A folder that holds this file under its own name and nothing else, as transformers reads what lies beside."""
        with TemporaryDirectory(prefix="ets-gguf-") as folder:
            (Path(folder) / self.path.name).symlink_to(self.path.resolve())
            yield Path(folder)


def is_gguf(path: Path) -> bool:
    """Whether a model's path is that of a .gguf file."""
    return path.suffix.lower() == ".gguf"


def read_gguf(model: str, path: Path) -> GgufFile:
    """Read a file's header, and hold its length against it.

    Raises:
        ConfigError: what reads such files is not installed; the file is none, is cut short, or is of a kind that
            cannot be read.
    """
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"model {model!r}: reading .gguf files needs {' and '.join(missing)}: {install('gguf')}")
    try:
        with path.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Header(content).read(model, path)
    except (OSError, ValueError) as error:  # An empty file cannot be mapped.
        raise ConfigError(f"model {model!r} is no .gguf file that can be read: {error}") from None
    except (struct.error, IndexError, OverflowError, MemoryError):
        raise ConfigError(f"model {model!r} is cut short or damaged: its header does not end") from None


class _Header:
    """Walks over a header."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._at = content, 0

    def read(self, model: str, path: Path) -> GgufFile:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

        if self._content[:4] != b"GGUF":
            raise ConfigError(f"model {model!r} is no .gguf file: it does not begin with GGUF")
        self._at = 4
        (version,) = self._take("I")
        if version not in _VERSIONS:
            raise ConfigError(
                f"model {model!r} is of GGUF version {version}; read are {', '.join(map(str, _VERSIONS))}"
            )
        num_tensors, num_keys = self._take("QQ")
        metadata = {self._text(): self._value(*self._take("I")) for _ in range(num_keys)}
        if not isinstance(metadata.get("general.architecture"), str):
            raise ConfigError(f"model {model!r} names no architecture")
        if metadata.get("split.count", 0) > 1:
            raise ConfigError(
                f"model {model!r} is one of {metadata['split.count']} files; join them: llama-gguf-split --merge"
            )
        types: dict[str, str] = {}
        num_parameters = 0
        weight: dict[str, int] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        places: dict[str, tuple[int, int]] = {}
        for _ in range(num_tensors):
            name = self._text()
            shape = self._take(f"{self._take('I')[0]}Q")
            number, offset = self._take("IQ")
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                raise ConfigError(
                    f"model {model!r}: tensor {name} is of quantisation {number}, which is not known"
                ) from None
            num_parameters += prod(shape)
            block, block_bytes = GGML_QUANT_SIZES[kind]
            num_bytes = prod(shape) // block * block_bytes
            types[name] = kind.name
            shapes[name] = tuple(reversed(shape))
            weight[kind.name] = weight.get(kind.name, 0) + num_bytes
            places[name] = (offset, offset + num_bytes)
        if not types:
            raise ConfigError(f"model {model!r} holds no weights")
        grain = int(metadata.get("general.alignment", 32))
        begin = -(-self._at // grain) * grain
        places = {name: (begin + first, begin + last) for name, (first, last) in places.items()}
        wanted, found = max(last for _, last in places.values()), len(self._content)
        if found < wanted:
            raise ConfigError(f"model {model!r} is cut short: it has {found} bytes, its header promises {wanted}")
        try:
            kind_name = LlamaFileType(metadata["general.file_type"]).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        except (KeyError, ValueError):
            kind_name = max(weight, key=weight.__getitem__)
        return GgufFile(path, metadata, types, shapes, places, kind_name, found, num_parameters)

    def _take(self, kinds: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + kinds, self._content, self._at)
        self._at += struct.calcsize("<" + kinds)
        return found

    def _text(self) -> str:
        (length,) = self._take("Q")
        if length > len(self._content) - self._at:
            raise IndexError(length)
        self._at += length
        return self._content[self._at - length : self._at].decode("utf-8", errors="replace")

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])[0]
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise IndexError(kind)
        inner, count = self._take("IQ")
        if count > len(self._content) - self._at:
            raise IndexError(count)
        if inner in _SCALARS:
            return list(self._take(f"{count}{_SCALARS[inner]}"))
        return [self._value(inner) for _ in range(count)]
