"""From settings to a writer: one model, or draft, target and router put together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from search.config import SearchSettings, build
from search.errors import ConfigError
from search.prompts import PromptRenderer
from search.protocols import Engine, Router, Scorer, Tokenizer, Writer
from search.registry import load, make_engine, model_path, prm_config
from search.tree import SearchTree
from search.writer import ModelWriter

if TYPE_CHECKING:
    from arbitrage.models import ModelView
    from arbitrage.reading import RouterConfig, RouterReader

Role = Literal["policy", "prm", "draft", "router"]
"""Whose engines may be given ready; the target's is the policy's."""

_SCORED: Mapping[str, str] = {"arbitrage": "mini:router", "rsd": "mini:prm", "oracle": "mini:prm"}
"""Kinds of routers that have a model of their own, and which it is where none is named."""


def check_routing(settings: SearchSettings) -> SearchSettings:
    """The settings with the router's model settled; wrong ones are said before a model is loaded.

    Raises:
        ConfigError: an unknown router, a threshold out of range, a model that is no router, or settings that
            contradict each other.
    """
    if settings.writer == "model":
        if settings.pipeline:
            raise ConfigError("pipeline: only writer arbitrage has steps to write ahead")
        return settings
    parse = load("arbitrage.routers:parse_router")
    spec = parse(settings.router)
    if settings.policy not in (SearchSettings.model_fields["policy"].default, settings.target):
        raise ConfigError(f"writer arbitrage writes with draft and target; policy {settings.policy!r} is not used")
    if settings.pipeline and settings.width != 1:
        raise ConfigError(
            f"pipeline needs width 1 (method chain, or greedy), not {settings.width}: in a wider search the method "
            "decides who goes on only when all of a level is judged"
        )
    if spec.kind not in _SCORED:
        if settings.router_model != "auto":
            raise ConfigError(f"router {spec.name} has no model of its own; router_model {settings.router_model!r}")
        return settings
    model = _SCORED[spec.kind] if settings.router_model == "auto" else settings.router_model
    if spec.kind == "arbitrage":
        _warn_of_pair(settings, model, router_config(model, settings.router_engine))
    else:
        prm_config(model, "auto", settings.router_engine)
    return build(type(settings), {**settings.model_dump(), "router": spec.name, "router_model": model})


def router_config(model: str, engine: str = "local") -> RouterConfig:
    """What a router's checkpoint says of itself.

    Args:
        model: a path, a hub id, or `mini:router`.
        engine: where it is to run; only the local engine fetches files that are not here.

    Raises:
        ConfigError: no such checkpoint, or it is no router.
    """
    from pathlib import Path

    from arbitrage.reading import read_config
    from search.hub import find_model

    path = model_path(model)
    folder = Path(path).expanduser()
    if engine == "local" or folder.is_dir():
        folder = find_model(path)
    return read_config(model, folder)


def _warn_of_pair(settings: SearchSettings, model: str, config: RouterConfig) -> None:
    for role, trained in (("draft", config.draft), ("target", config.target)):
        given = getattr(settings, role)
        if trained != given:
            warnings.warn(
                f"router {model!r} was trained for {role} {trained!r}, not {given!r}: its estimates may mean little",
                stacklevel=4,
            )


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines that are loaded already; None: loaded as the settings say. The target's is `policy`."""

    policy: Engine | None = None
    prm: Engine | None = None
    draft: Engine | None = None
    router: Engine | None = None


def make_writer(settings: SearchSettings, engines: Engines) -> Writer:
    """The writer that the settings describe, as `check_routing` settled them.

    Raises:
        ConfigError: a checkpoint cannot be used, or a reward model has no reading.
    """
    name = settings.policy if settings.writer == "model" else settings.target
    policy = engines.policy or make_engine(settings.engine, name, settings, settings.max_kv_tokens)
    if settings.writer == "model":
        return ModelWriter(policy, name)

    from arbitrage.models import ModelView
    from arbitrage.writer import DraftTargetWriter

    draft = engines.draft or make_engine(settings.draft_engine, settings.draft, settings, settings.max_kv_tokens)
    target_view = ModelView(policy, policy.tokenizer)
    draft_view = ModelView(draft, policy.tokenizer, prompt_for(settings, draft.tokenizer))
    router = _make_router(settings, target_view, engines)
    return DraftTargetWriter(draft_view, target_view, router, pipeline=settings.pipeline)


def prompt_for(settings: SearchSettings, tokenizer: Tokenizer) -> Callable[[SearchTree], tuple[int, ...]]:
    """A question as a model with a tokenizer of its own is asked it, by as many chat options as its template reads."""
    options = {name: value for name, value in settings.chat_options.items() if _reads(tokenizer, name, value)}
    for name in sorted(settings.chat_options.keys() - options.keys()):
        warnings.warn(f"chat option {name!r}: the draft's chat template reads no such option", stacklevel=3)
    asked = "auto" if settings.prompt == "chat" else settings.prompt
    prompts = PromptRenderer(settings.model_copy(update={"prompt": asked, "chat_options": options}), tokenizer)
    return lambda tree: prompts.render(tree.question).ids


def _reads(tokenizer: Tokenizer, name: str, value: object) -> bool:
    try:
        return tokenizer.chat([{"role": "user", "content": "1 + 1"}], {name: value}) is not None
    except ConfigError:
        return False


def _make_router(settings: SearchSettings, target: ModelView, engines: Engines) -> Router:
    from arbitrage import routers

    spec = routers.parse_router(settings.router)
    if spec.kind == "never":
        return routers.Never()
    if spec.kind == "always":
        return routers.Always()
    if spec.kind == "random":
        return routers.RandomRouter(spec.threshold)
    if spec.kind == "judge":
        return routers.Judge(target, spec.threshold)
    scorer = _router_scorer(settings, target.tokenizer, engines)
    if spec.kind == "oracle":
        return routers.Oracle(scorer, spec.threshold)
    return routers.ScoreRouter(cast(Literal["rsd", "arbitrage"], spec.kind), scorer, spec.threshold)


def _codec(name: str) -> Any:
    """The codec class of a family."""
    from prm import CODECS

    return load(CODECS[name].target)


def _router_scorer(settings: SearchSettings, tokenizer: Tokenizer, engines: Engines) -> Scorer:
    """The reward model or the learned router behind a router, read by its codec."""
    from prm import PrmScorer

    engine = engines.router
    if engine is None and engines.prm is not None and settings.router_model == settings.prm:
        engine = engines.prm
    engine = engine or make_engine(settings.router_engine, settings.router_model, settings, settings.prm_max_kv_tokens)
    if settings.router.startswith("arbitrage"):
        config = router_config(settings.router_model, settings.router_engine)
        return PrmScorer(engine, router_reader(config, engine.tokenizer, tokenizer))
    codec = settings.prm_codec if settings.router_model == settings.prm else "auto"
    found = prm_config(settings.router_model, codec, settings.router_engine)
    same = engine.tokenizer.fingerprint == tokenizer.fingerprint
    return PrmScorer(engine, _codec(found.codec).configured(engine.tokenizer, found, same))


def router_reader(config: RouterConfig, tokenizer: Tokenizer, tree_tokenizer: Tokenizer) -> RouterReader:
    """How a learned router reads trees whose ids are those of `tree_tokenizer`."""
    from arbitrage.reading import RouterReader
    from prm.checkpoint import PrmConfig

    found = PrmConfig(**config.reader)
    same = tokenizer.fingerprint == tree_tokenizer.fingerprint
    return RouterReader.build(_codec(found.codec).configured(tokenizer, found, same), tokenizer, config)
