"""From settings to parts, by the names of the catalogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from search.answers.graders import close_grader
from search.catalogue import ENGINES, GRADERS, METHODS, SCORERS, load, pick, scorer_kind
from search.checkpoints.hub import holds_gguf
from search.config import METHOD_OPTIONS, SearchSettings
from search.errors import ConfigError
from search.setting_groups import EngineSettings, MethodSettings, RewardModelSettings
from search.setting_types import Scalar

if TYPE_CHECKING:
    from prm import NamedScorer, PrmConfig
    from search.answers.graders import Grader
    from search.protocols import Engine, FeatureProvider, Policy, Scorer, Tokenizer, Writer
    from search.tree import SearchTree
    from search.types import NodeId, Sampling


BENCHES: Mapping[str, str] = {
    "coverage": "search.studies.coverage:run",
    "embedders": "search.studies.embedders:run",
    "engine": "search.studies.engine:run",
    "latency": "search.studies.latency:run",
    "methods": "search.studies.methods:run",
    "pipeline": "search.studies.pipeline:run",
    "prune": "search.studies.prune:run",
    "routers": "search.studies.routers:run",
    "sampling": "search.studies.sampling:run",
    "sglang": "search.studies.sglang:run",
    "stopping": "search.studies.stopping:run",
    "widths": "search.studies.widths:run",
}


def method_options(method: str) -> dict[str, dataclasses.Field[Any]]:
    """The options that a method's policy has, by name.

    Raises:
        ConfigError: unknown method.
    """
    policy = load(pick("method", method, METHODS).policy)
    return {item.name: item for item in dataclasses.fields(policy) if item.init and item.name != "reduce"}


def make_policy(settings: MethodSettings, reduce: str) -> Policy:
    """The search policy with its options.

    Args:
        settings: the method and its options.
        reduce: the path reward that the policy reads.

    Raises:
        ConfigError: unknown method, unknown option, an option's value out of range, or a frontier that cannot roll.
    """
    method = pick("method", settings.method, METHODS)
    if settings.frontier == "rolling" and not method.rolls:
        rolling = ", ".join(name for name, candidate in METHODS.items() if candidate.rolls)
        raise ConfigError(f"frontier rolling: method {settings.method} has none; those that have: {rolling}")
    option_fields = method_options(settings.method)
    flags = {name: getattr(settings, name) for name in METHOD_OPTIONS}
    options = {**{name: value for name, value in flags.items() if value is not None}, **settings.options}
    for name in options:
        if name not in option_fields:
            accepted = ", ".join(sorted(option_fields)) or "none"
            raise ConfigError(f"method {settings.method} has no option {name!r}; it has: {accepted}")
    policy: Policy = load(method.policy)(**_typed(options, option_fields), reduce=reduce)
    return policy if settings.frontier == "level" else cast("Policy", load("search.policies:Rolling")(policy))


def make_grader(name: str) -> Grader:
    """What finds and compares answers.

    Raises:
        ConfigError: unknown, or its library is not installed.
    """
    grader: Grader = load(pick("grader", name, GRADERS))()
    return grader


@contextmanager
def opened_grader(name: str) -> Iterator[Grader]:
    """As `make_grader`, closed at the end of the block."""
    grader = make_grader(name)
    try:
        yield grader
    finally:
        close_grader(grader)


def make_features(settings: SearchSettings, wanted: frozenset[str]) -> list[FeatureProvider]:
    """Providers for the features that a policy declares, as far as they need no model of the search.

    Raises:
        ConfigError: an unknown embedder, or one whose model is not at hand.
    """
    if "embedding" not in wanted or settings.embedder == "prm":
        return []
    return [load("ets.embedders:make_embedder")(settings.embedder, device=settings.device)]


def check_hidden_embedder(settings: RewardModelSettings) -> None:
    """Refuse the embedder "prm" where no reward model gives its hidden states.

    Raises:
        ConfigError: there is no reward model, or it is not on the local engine.
    """
    if not runs_on_engine(settings.prm):
        raise ConfigError("embedder prm needs a reward model; known without one: tfidf, minilm, or a model's name")
    if settings.prm_engine != "local":
        raise ConfigError(
            f"embedder prm needs the reward model's hidden states, which prm_engine {settings.prm_engine} does not "
            "give; set prm_engine to local, or choose another embedder"
        )


def _typed(options: Mapping[str, Scalar], option_fields: Mapping[str, dataclasses.Field[Any]]) -> dict[str, Scalar]:
    """Options with whole numbers made floats where the field is a float; all else must fit as it is."""
    typed: dict[str, Scalar] = {}
    for name, value in options.items():
        kind = str(option_fields[name].type)
        if kind.startswith("float") and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        accepted = {"float": float, "int": int, "bool": bool, "str": str}.get(kind.split(" ")[0])
        misfits = accepted is not None and (
            not isinstance(value, accepted) or isinstance(value, bool) != (accepted is bool)
        )
        if misfits:
            raise ConfigError(f"option {name} = {value!r}: must be {kind}")
        typed[name] = value
    return typed


def model_path(name: str) -> str:
    """A checkpoint's path or hub id; `mini:ROLE` names the shipped family, KIND:MODEL what that kind of scorer loads.

    Raises:
        ConfigError: no such member of the mini family.
    """
    if scorer_kind(name) is not None:
        name = name.partition(":")[2]
    if name.startswith("mini:"):
        from search.mini.assets import checkpoint_path

        return str(checkpoint_path(name.removeprefix("mini:")))
    return name


def weights_of(model: str) -> str | None:
    """The fingerprint of a checkpoint that is at hand; see `search.checkpoints.weights`. None where it is not.

    Args:
        model: a path, a hub id, or `mini:ROLE`.

    Raises:
        ConfigError: no such member of the mini family, or its files cannot be read.
    """
    from huggingface_hub.errors import HFValidationError

    from search.checkpoints.hub import cached_model
    from search.checkpoints.weights import fingerprint

    path = Path(model_path(model)).expanduser()
    if path.exists():
        return fingerprint(path)
    try:
        folder = cached_model(model_path(model))
    except HFValidationError:
        return None
    return None if folder is None else fingerprint(folder)


def check_writes(model: str) -> None:
    """Refuse a checkpoint that says of itself that it is a reward model where one is to write: it would write rubbish.

    Raises:
        ConfigError: it is one, or there is no such member of the mini family.
    """
    if (Path(model_path(model)).expanduser() / "prm_config.json").is_file():
        raise ConfigError(
            f"model {model!r} is a reward model (it has a prm_config.json) and writes no steps; give --prm"
        )


def make_engine(spec: str, model: str, settings: EngineSettings, max_kv_tokens: int | None) -> Engine:
    """Load a model on an engine, or connect to the servers that serve it.

    Args:
        spec: a kind, or a kind and an address, e.g. "local" or "sglang:http://127.0.0.1:30000".
        model: a path, a hub id, or `mini:ROLE`.
        settings: `device`, `dtype` and the like for a local engine; how requests travel for servers.
        max_kv_tokens: KV slots of a local engine.

    Raises:
        ConfigError: unknown engine, a wrong address, no server there, or a checkpoint that cannot be used.
    """
    if model != "none" and not runs_on_engine(model):
        raise ConfigError(f"{model} is no model to load: it scores the steps of a search, as prm, and nothing else")
    kind, colon, address = spec.partition(":")
    cls = load(pick("engine", kind, ENGINES))
    path, trust = model_path(model), settings.trust_remote_code
    engine: Engine
    if colon and not hasattr(cls, "connect"):
        raise ConfigError(f"engine {spec!r}: engine {kind} takes no address")
    if colon or not hasattr(cls, "load"):
        from search.engines.remote.http import RequestLimits

        api_key = "" if settings.engine_api_key is None else settings.engine_api_key.get_secret_value()
        limits = RequestLimits(settings.request_timeout, settings.request_attempts, settings.max_requests, api_key)
        # A chat API knows its models by names of its own.
        engine = cls.connect(model if kind == "chat" else path, address, limits=limits, trust_remote_code=trust)
    elif kind == "local":
        engine = cls.load(
            path,
            device=settings.device,
            dtype=settings.dtype if "dtype" in settings.model_fields_set else None,
            max_kv_tokens=max_kv_tokens,
            trust_remote_code=trust,
            gguf_weights=settings.gguf_weights if holds_gguf(path) else "dequantized",
        )
    else:
        room = {} if max_kv_tokens is None else {"max_total_tokens": max_kv_tokens}
        engine = cls.load(path, trust_remote_code=trust, device=settings.device, dtype=settings.dtype, **room)
    return engine


def runs_on_engine(prm: str) -> bool:
    """Whether a reward model is one that an engine loads: neither "none" nor what the writer's own numbers give."""
    kind = scorer_kind(prm)
    return prm != "none" if kind is None else kind.loads


def criticises_itself(settings: SearchSettings) -> bool:
    """Whether the reward model is the very model that writes, loaded for the same engine, so that one is enough."""
    kind = scorer_kind(settings.prm)
    if kind is None or not kind.loads or settings.writer != "model" or settings.prm_max_kv_tokens is not None:
        return False
    places = {str(Path(model_path(model)).expanduser().absolute()) for model in (settings.policy, settings.prm)}
    return len(places) == 1 and settings.engine == settings.prm_engine


def prm_config(model: str, codec: str = "auto", engine: str = "local") -> PrmConfig:
    """How a reward model is read, found out from its files, and why.

    Args:
        model: a path, a hub id, `mini:ROLE`, or one of the `SCORERS`, e.g. `confidence:NAME`.
        codec: a codec's name, or "auto" to recognise the family.
        engine: where it is to run; only the local engine fetches files that are not here.

    Raises:
        ConfigError: no such checkpoint, or it is no reward model; see `prm.detect`.
    """
    from prm import detect_prm

    if model in SCORERS and not Path(model).exists():
        raise ConfigError(f"prm {model!r} names a kind alone; known: {SCORERS[model].written}")
    if (kind := scorer_kind(model)) is not None:
        named: type[NamedScorer] = load(kind.scorer)
        config = named.read(model)
        if codec not in ("auto", config.codec):
            raise ConfigError(f"prm {model} is of no family, so prm_codec {codec!r} means nothing; leave it at auto")
        return config
    return detect_prm(model, checkpoint_folder(model, engine), codec)


def checkpoint_folder(model: str, engine: str) -> Path:
    """Where a checkpoint's files are, or would be; only the local engine fetches those that are not here.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    from search.checkpoints.hub import find_model

    path = model_path(model)
    folder = Path(path).expanduser()
    return find_model(path) if engine == "local" or folder.is_dir() else folder


def make_scorer(
    settings: SearchSettings, engine: Engine | None, policy_tokenizer: Tokenizer, writer: Writer | None = None
) -> Scorer:
    """A reward model by its name.

    Args:
        settings: `prm`, `prm_codec` and `prm_engine` are read.
        engine: that has loaded it; None for one that no engine loads.
        policy_tokenizer: whose ids stand in the trees.
        writer: writes them, for scorers that read its model's states.

    Raises:
        ConfigError: the checkpoint is no reward model, or its codec does not fit the tokenizer.
    """
    from prm import PrmScorer, ScorerParts, codec_of

    if (kind := scorer_kind(settings.prm)) is not None:
        named: type[NamedScorer] = load(kind.scorer)
        weights = None if writer is None else weights_of(settings.policy)
        options = {name: getattr(settings, name) for name in kind.options}
        return named.build(ScorerParts(settings.prm, engine, writer, weights, options))
    assert engine is not None
    config = prm_config(settings.prm, settings.prm_codec, settings.prm_engine)
    return PrmScorer(engine, codec_of(config, engine.tokenizer, policy_tokenizer))


def hopeless_below(least: float, prm: str) -> Callable[[SearchTree, NodeId], str]:
    """Why a step is given up: it is less sure than `least`, by the confidence that is the reward model, if one is."""
    from prm.confidence import PREFIX, ConfidenceScorer
    from search.ledger import HOPELESS

    scorer = ConfidenceScorer(prm if prm.startswith(PREFIX) else f"{PREFIX}lowest-group")

    def reason(tree: SearchTree, node: NodeId) -> str:
        value = scorer.reward(tree, node)
        return "" if value >= least else f"{HOPELESS}{value:.3g}, below {least:g}"

    return reason


def make_lookahead(scorer: Scorer, writer: Writer, sampling: Sampling, num_steps: int) -> Scorer:
    """A scorer that looks ahead with the model in whose ids the trees are: the policy, or the target."""
    from prm.lookahead import LookaheadScorer

    engine = writer.engines.get("policy") or writer.engines["target"]
    return LookaheadScorer(scorer, engine, sampling, num_steps)
