"""The client's side of a model that runs on a server: its tokenizer, its limits, and whether both mean the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from search.checkpoints.hub import find_model
from search.engines.huggingface.checkpoint import any_config, check_sizes, context_tokens, read_tokenizer
from search.engines.huggingface.token_bytes import TokenBytes
from search.engines.huggingface.tokenizer import HFTokenizer, end_ids
from search.engines.remote.http import HttpClient
from search.engines.stops import StopRule, StopRules, TokenTable
from search.errors import ConfigError, EngineError
from search.protocols import Tokenizer
from search.types import EngineInfo

TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""What the client needs of a checkpoint; the weights are the server's."""

PROBE_TEXT = "A bag holds 12 pens, 3 red.\n\n1 + 1 = 2; naïve: x² ≤ 10"
"""Tells tokenizers apart: words, digits, line breaks, and characters of several bytes."""


@dataclass(slots=True)
class RemoteModel:
    """What the client knows of a model.

    Attributes:
        tokenizer: its tokenizer.
        table: bytes of its tokens.
        info: what it is; completed once a server was asked.
        model_type: as in config.json; empty where there is none.
        architectures: as in config.json.
    """

    tokenizer: Tokenizer
    table: TokenTable
    info: EngineInfo
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    _rules: StopRules = field(init=False)
    _ids: dict[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rules = StopRules(self.table, self.tokenizer.eos_ids)

    @property
    def num_layers(self) -> int:
        """Decoder layers, as in config.json."""
        return int(self.info.details.get("layers", 0))

    def stop_rule(self, stops: tuple[str, ...]) -> StopRule:
        """When a step with these stop strings ends."""
        return self._rules.rule(stops)

    def token_id(self, name: str) -> int | None:
        """The token that a server names: "token_id:N", or a token's text; None for the text of several or of none."""
        prefix, colon, number = name.partition(":")
        if colon and prefix == "token_id" and number.isdecimal():
            return int(number)
        if not self._ids:
            for token, piece in enumerate(self.table.full[: self.info.vocab_size]):
                text = piece.decode("utf-8", errors="replace")
                self._ids[text] = None if text in self._ids else token
        return self._ids.get(name)

    def described(self, **values: Any) -> None:
        """Put what a server said into `info`; `details` are added to those that are there."""
        details = {**self.info.details, **values.pop("details", {})}
        self.info = replace(self.info, **values, details=details)


def read_model(model: str, engine: str, trust_remote_code: bool = False) -> RemoteModel:
    """The client's side of a checkpoint, from its small files.

    Args:
        model: a folder, a .gguf file, or a hub id; of the latter no weights are fetched.
        engine: kind of engine, for records.
        trust_remote_code: run a tokenizer's own code.

    Raises:
        ConfigError: no such model, or it has no configuration or tokenizer that can be read.
    """
    folder = find_model(model, TOKENIZER_FILES)
    config = any_config(model, folder, trust_remote_code)
    raw = read_tokenizer(model, folder, trust_remote_code)
    text = config.get_text_config(decoder=True)
    check_sizes(model, raw, int(text.vocab_size))
    table = TokenBytes(raw, int(text.vocab_size))
    info = EngineInfo(
        name=engine,
        model=model,
        context_tokens=context_tokens(config, raw),
        vocab_size=int(text.vocab_size),
        details={"layers": str(getattr(text, "num_hidden_layers", 0))},
    )
    ends = (_generation_config(folder).get("eos_token_id"), getattr(config, "eos_token_id", None), raw.eos_token_id)
    tokenizer = HFTokenizer(raw, table, end_ids(ends))
    return RemoteModel(tokenizer, table, info, str(config.model_type), tuple(config.architectures or ()))


def _generation_config(folder: Path) -> dict[str, Any]:
    """What generation_config.json says; nothing without one."""
    try:
        values = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    return values if isinstance(values, dict) else {}


async def read_ids(client: HttpClient, url: str, served: str) -> tuple[int, ...] | None:
    """What a server makes of `PROBE_TEXT`, without special tokens; None from one, or a router, that does not say.

    What is no id is given as it is: `check_same` refuses it as another tokenizer's.

    Raises:
        EngineError: it cannot be reached.
    """
    body = {"model": served, "prompt": PROBE_TEXT, "add_special_tokens": False}
    try:
        answer = await client.post(f"{url}/tokenize", body)
    except EngineError as error:
        if error.status is None:
            raise
        return None
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    return tuple(tokens) if isinstance(tokens, list) else None


def check_same(model: RemoteModel, url: str, *, ids: Iterable[int] | None, model_type: str, served: str) -> None:
    """Hold a server's model against ours: ids of another tokenizer mean nothing there, or kill it.

    Args:
        model: ours.
        url: of the server, for the message.
        ids: what the server makes of `PROBE_TEXT`; None where it does not say.
        model_type: as the server's configuration says; empty where it does not.
        served: the server's name of its model.

    Raises:
        ConfigError: it serves another model.
    """
    asked = model.info.model
    if model_type and model.model_type and model_type != model.model_type:
        raise ConfigError(
            f"{url} serves {served}, of type {model_type}; {asked!r} is of type {model.model_type}: "
            "name the model that the server serves"
        )
    if ids is not None and tuple(ids) != model.tokenizer.encode(PROBE_TEXT):
        raise ConfigError(
            f"{url} serves {served}, whose tokenizer gives other ids than that of {asked!r}: "
            "name the model that the server serves"
        )


def parse_urls(kind: str, address: str) -> tuple[str, ...]:
    """The servers of an engine's address: http://host:port, several with commas between them.

    Raises:
        ConfigError: an address that is none.
    """
    urls = []
    for part in address.split(","):
        text = part.strip().rstrip("/")
        try:
            url = urlsplit(text)
            valid = url.scheme in ("http", "https") and bool(url.hostname) and not url.query and not url.fragment
            valid &= url.port != 0 and not re.search(r"[\s\x00-\x1f]", text)
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(
                f"engine {kind}:{address}: {text!r} is no address of a server; "
                f"accepted: {kind}:http://HOST:PORT, several with commas between them"
            )
        urls.append(text)
    if len(set(urls)) != len(urls):
        raise ConfigError(f"engine {kind}:{address}: a server stands there twice")
    return tuple(urls)
