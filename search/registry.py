"""From names to parts. Names map to "module:attribute" strings, so nothing is imported before it is asked for."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import Scalar, SearchSettings, build
from search.errors import ConfigError

if TYPE_CHECKING:
    from search.protocols import Engine, Policy, Scorer, Tokenizer


@dataclass(frozen=True, slots=True)
class Method:
    """A search method by name: its policy class, and the settings it stands for."""

    policy: str
    fixed: Mapping[str, object] = field(default_factory=dict)


METHODS: Mapping[str, Method] = {
    "greedy": Method("search.policies:BestOfN", {"width": 1, "temperature": 0.0}),
    "self-consistency": Method("search.policies:BestOfN", {"prm": "none", "vote": "majority"}),
    "best-of-n": Method("search.policies:BestOfN"),
    "beam": Method("search.policies:Beam"),
    "dvts": Method("search.policies:Dvts"),
    "rebase": Method("search.policies:Rebase"),
    "particle": Method("search.policies:ParticleFilter"),
}

ENGINES: Mapping[str, str] = {"local": "search.engines.local:LocalEngine"}

BENCHES: Mapping[str, str] = {
    "engine": "search.bench.engine:run",
    "widths": "search.bench.widths:run",
}

CODECS: Mapping[str, str] = {"label-tokens": "prm:LabelTokenCodec"}


def load(target: str) -> Any:
    """The object that a "module:attribute" string names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def pick(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """Look a name up.

    Raises:
        ConfigError: unknown; lists what is known and the nearest.
    """
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"unknown {kind} {name!r}{guess}; known: {', '.join(known)}")


def with_method(settings: SearchSettings) -> SearchSettings:
    """Put in what the method's name stands for.

    Raises:
        ConfigError: unknown method, or a setting given that contradicts it.
    """
    method: Method = pick("method", settings.method, METHODS)
    for name, value in method.fixed.items():
        given = getattr(settings, name)
        if name in settings.model_fields_set and given != value:
            raise ConfigError(f"method {settings.method} stands for {name} {value}; {name} {given} contradicts it")
    return build(type(settings), {**settings.model_dump(), **method.fixed})


def make_policy(settings: SearchSettings, reduce: str) -> Policy:
    """The search policy with its options.

    Args:
        settings: `method` and `options` are read.
        reduce: the path reward that the policy reads.

    Raises:
        ConfigError: unknown method, unknown option, or an option's value out of range.
    """
    cls = load(pick("method", settings.method, METHODS).policy)
    known = {item.name: item for item in dataclasses.fields(cls) if item.init and item.name != "reduce"}
    for name in settings.options:
        if name not in known:
            accepted = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"method {settings.method} has no option {name!r}; it has: {accepted}")
    policy: Policy = cls(**_typed(settings.options, known), reduce=reduce)
    return policy


def _typed(options: Mapping[str, Scalar], known: Mapping[str, dataclasses.Field[Any]]) -> dict[str, Scalar]:
    """Options with whole numbers made floats where the field is a float; all else must fit as it is."""
    typed: dict[str, Scalar] = {}
    for name, value in options.items():
        kind = str(known[name].type)
        if kind.startswith("float") and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        accepted = {"float": float, "int": int, "bool": bool, "str": str}.get(kind.split(" ")[0])
        wrong = accepted is not None and (
            not isinstance(value, accepted) or isinstance(value, bool) != (accepted is bool)
        )
        if wrong:
            raise ConfigError(f"option {name} = {value!r}: must be {kind}")
        typed[name] = value
    return typed


def model_path(name: str) -> str:
    """A checkpoint's path or hub id; `mini:ROLE` names the shipped family.

    Raises:
        ConfigError: no such member of the mini family.
    """
    if name.startswith("mini:"):
        from search.mini.assets import checkpoint_path

        return str(checkpoint_path(name.removeprefix("mini:")))
    return name


def make_engine(spec: str, model: str, settings: SearchSettings, max_kv_tokens: int | None) -> Engine:
    """Load a model on an engine.

    Raises:
        ConfigError: unknown engine, or a checkpoint that cannot be used.
    """
    cls = load(pick("engine", spec, ENGINES))
    engine: Engine = cls.load(
        model_path(model),
        device=settings.device,
        dtype=settings.dtype,
        max_kv_tokens=max_kv_tokens,
        trust_remote_code=settings.trust_remote_code,
    )
    return engine


@dataclass(frozen=True, slots=True)
class PrmConfig:
    """What a reward model's own `prm_config.json` says of it; the defaults where there is none.

    Attributes:
        codec: the family of reading.
        good_token, bad_token: the labels.
        reduce: how its step rewards become a path's: "last" for rewards that judge the path so far.
    """

    codec: str = "label-tokens"
    good_token: str = "+"
    bad_token: str = "-"
    step_tag: str = ""
    reduce: str = "last"


def prm_config(model: str) -> PrmConfig:
    """Read `prm_config.json` beside a local checkpoint.

    Raises:
        ConfigError: the file is not what it should be.
    """
    file = Path(model_path(model)) / "prm_config.json"
    if not file.is_file():
        return PrmConfig()
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return PrmConfig(
            codec=str(values.get("codec", "label-tokens")),
            good_token=str(values.get("good_token", "+")),
            bad_token=str(values.get("bad_token", "-")),
            step_tag=str(values.get("step_tag", "")),
            reduce=str(values.get("reduce_in_search", "last")),
        )
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: not a reward model's configuration ({error})") from None


def make_scorer(settings: SearchSettings, engine: Engine, policy_tokenizer: Tokenizer) -> Scorer:
    """A reward model over `engine`, read by its own codec.

    Raises:
        ConfigError: the codec is unknown or does not fit the tokenizer.
    """
    from prm import PrmScorer

    config = prm_config(settings.prm)
    codec = load(pick("reward model codec", config.codec, CODECS)).build(
        engine.tokenizer,
        config.good_token,
        config.bad_token,
        step_tag=config.step_tag,
        shares_ids=engine.tokenizer.fingerprint == policy_tokenizer.fingerprint,
    )
    return PrmScorer(engine, codec)
