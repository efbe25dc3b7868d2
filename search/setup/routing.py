"""From settings to a writer: one model, or draft, target and router put together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from search.catalogue import ROUTERS, RouterKind, load
from search.config import SearchSettings
from search.errors import ConfigError
from search.loop.writer import ModelWriter
from search.prompt.prompts import PromptRenderer
from search.protocols import Engine, Router, Scorer, Tokenizer, Writer
from search.setting_groups import ModelSettings, PromptSettings
from search.setup.registry import (
    checkpoint_folder,
    make_engine,
    make_scorer,
    model_path,
    prm_config,
    runs_on_engine,
    weights_of,
)
from search.tree import SearchTree

if TYPE_CHECKING:
    from arbitrage.models import ModelView
    from arbitrage.reading import RouterConfig, RouterReader
    from arbitrage.routers import RouterClass
    from prm.probe import Probe, ProbeConfig

Role = Literal["policy", "prm", "draft", "router"]
"""Whose engines may be given ready; the target's is the policy's."""

OWN = "own"
"""What stands for a model that is an object of the caller's."""


class RouterSpec(NamedTuple):
    """A router as it is named: its kind's name, its threshold, 0 for a kind without one, and its model where named."""

    kind: str
    threshold: float
    model: str = ""

    @property
    def name(self) -> str:
        """As it is written beside a `router_model`."""
        return f"{self.kind}:{self.threshold:g}" if ROUTERS[self.kind].threshold else self.kind


def parse_router(text: str) -> RouterSpec:
    """A router's name taken apart.

    Raises:
        ConfigError: unknown kind, or a threshold out of range; says what is accepted.
    """
    name, colon, value = text.partition(":")
    if name not in ROUTERS:
        raise ConfigError(f"unknown router {text!r}; known: {', '.join(map(_written, ROUTERS))}")
    kind = ROUTERS[name]
    if not kind.threshold:
        if colon:
            raise ConfigError(f"router {text!r}: {name} takes no threshold")
        return RouterSpec(name, 0.0)
    model = ""
    if kind.judge == "probe" and colon and not _is_number(value):
        folder, _, last = value.rpartition(":")
        model, value, colon = (folder, last, ":") if folder and _is_number(last) else (value, "", "")
    try:
        threshold = float(value) if colon else kind.default
    except ValueError:
        raise ConfigError(f"router {text!r}: the threshold must be a number; accepted: {_written(name)}") from None
    if not 0 <= threshold <= kind.highest:
        raise ConfigError(f"router {text!r}: the threshold {threshold:g} is out of range; accepted: {_written(name)}")
    return RouterSpec(name, threshold, model)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _written(name: str) -> str:
    kind = ROUTERS[name]
    return f"{name}:{kind.threshold} ({kind.meaning}, 0 to {kind.highest:g})" if kind.threshold else name


def router_kind(router: str) -> RouterKind:
    """The kind of a router: that of "rsd" for "rsd:0.7".

    Raises:
        ConfigError: an unknown router, or a threshold out of range.
    """
    return ROUTERS[parse_router(router).kind]


def choose_router(settings: SearchSettings, given: Set[str]) -> dict[str, str]:
    """What the router and its model are, from names alone; what judges by a reward model reads the search's own.

    Args:
        settings: with the reward model settled.
        given: settings that somebody named.

    Returns:
        The settings that it decides.

    Raises:
        ConfigError: an unknown router, settings that contradict each other, or a mini model that nobody named beside
            another model.
    """
    spec = parse_router(settings.router)
    kind = ROUTERS[spec.kind]
    if settings.policy not in (ModelSettings.model_fields["policy"].default, settings.target):
        raise ConfigError(f"writer arbitrage writes with draft and target; policy {settings.policy!r} is not used")
    for role, other in (("draft", "target"), ("target", "draft")):
        if not getattr(settings, role).startswith("mini:") and other not in given:
            raise ConfigError(
                f"writer arbitrage: {role} is {getattr(settings, role)!r} and no {other} was named; give --{other} too"
            )
    if settings.pipeline and settings.width != 1 and settings.method not in ("chain", "greedy"):
        raise ConfigError(
            f"pipeline needs width 1 (method chain, or greedy), not {settings.width}: in a wider search the method "
            "decides who goes on only when all of a level is judged"
        )
    if not kind.has_model:
        if settings.router_model != "auto":
            raise ConfigError(f"router {spec.name} has no model of its own; router_model {settings.router_model!r}")
        return {"router": spec.name}
    if spec.model and settings.router_model not in ("auto", spec.model):
        raise ConfigError(f"router {settings.router!r} and router_model {settings.router_model!r}: give one of the two")
    if spec.model or settings.router_model != "auto":
        return {"router": spec.name, "router_model": spec.model or settings.router_model}
    pair = [settings.draft, settings.target]
    is_mini = all(model.startswith("mini:") for model in pair)
    if kind.judge in ("router", "probe"):
        if not is_mini:
            raise ConfigError(
                f"router {spec.name}: {kind.model} was trained for the mini family, not for {pair[0]!r} and "
                f"{pair[1]!r}; name another with --router-model, or take a router without one, e.g. rsd:0.7"
            )
        return {"router": spec.name, "router_model": kind.model}
    if settings.prm == OWN:
        raise ConfigError(f"router {spec.name} reads no scorer of one's own; name its reward model with router_model")
    if settings.prm == "none":
        if not is_mini:
            raise ConfigError(
                f"router {spec.name} reads a reward model, and none was named; give --prm, or --router-model"
            )
        return {"router": spec.name, "router_model": kind.model}
    chosen = {"router": spec.name, "router_model": settings.prm}
    return chosen if "router_engine" in given else {**chosen, "router_engine": settings.prm_engine}


def read_router(settings: SearchSettings, notes: list[str]) -> str | None:
    """Read what the files of a router's model say, so that a wrong one is said before it is loaded.

    Args:
        settings: settled.
        notes: a line is added where a router is used beside other models than it was trained for.

    Returns:
        The codec of a router that reads a reward model which the search does not; else None.

    Raises:
        ConfigError: the model is no router, or no reward model.
    """
    kind = router_kind(settings.router)
    if not kind.has_model:
        return None
    if kind.judge == "prm":
        read = prm_config(settings.router_model, _router_codec(settings), settings.router_engine)
        return read.codec if settings.prm == "none" else None
    if kind.judge == "probe":
        # Another draft is refused when it is loaded: its files tell it.
        pair = {"target": router_probe_config(settings.router_model).target}
    else:
        config = router_config(settings.router_model, settings.router_engine)
        pair = {"draft": config.draft, "target": config.target}
    for role, trained in pair.items():
        if trained != (given := getattr(settings, role)):
            notes.append(
                f"router {settings.router_model!r} was trained for {role} {trained!r}, not {given!r}: its estimates "
                "may mean little"
            )
    return None


def _router_codec(settings: SearchSettings) -> str:
    """How a router's reward model is read: as the search's own where it is the same, or the search has none."""
    return settings.prm_codec if settings.prm in (settings.router_model, "none") else "auto"


def router_config(model: str, engine: str = "local") -> RouterConfig:
    """What a router's checkpoint says of itself.

    Args:
        model: a path, a hub id, or `mini:router`.
        engine: where it is to run; only the local engine fetches files that are not here.

    Raises:
        ConfigError: no such checkpoint, or it is no router.
    """
    from arbitrage.reading import read_config

    return read_config(model, checkpoint_folder(model, engine))


def router_probe_config(model: str) -> ProbeConfig:
    """What the probe behind a router reads.

    Args:
        model: a folder, or `mini:probe`.

    Raises:
        ConfigError: no probe there, or one that scores steps and does not route.
    """
    from prm.probe import read_config

    config = read_config(Path(model_path(model)).expanduser())
    if not config.target:
        raise ConfigError(
            f"router probe: {model} scores steps of {config.policy} (--prm probe:{model}); one that routes is made by "
            "ets router train --probe"
        )
    return config


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines that are loaded already; None: loaded as the settings say. The target's is `policy`."""

    policy: Engine | None = None
    prm: Engine | None = None
    draft: Engine | None = None
    router: Engine | None = None

    def of(self, role: str) -> Engine | None:
        """The one that is there for a role."""
        engine: Engine | None = getattr(self, "policy" if role == "target" else role)
        return engine


def make_writer(settings: SearchSettings, engines: Engines) -> Writer:
    """The writer that the settings describe, as `search.setup.resolve` settled them.

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
    router = _make_router(settings, draft_view, target_view, engines)
    return DraftTargetWriter(draft_view, target_view, router, pipeline=settings.pipeline)


def prompt_for(settings: PromptSettings, tokenizer: Tokenizer) -> Callable[[SearchTree], tuple[int, ...]]:
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


def _make_router(settings: SearchSettings, draft: ModelView, target: ModelView, engines: Engines) -> Router:
    from arbitrage.routers import RouterParts

    spec = parse_router(settings.router)
    kind = ROUTERS[spec.kind]
    scorer = _router_scorer(settings, kind, target.engine, engines) if kind.scores else None
    probe = _router_probe(settings, draft.engine) if kind.judge == "probe" else None
    router: type[RouterClass] = load(kind.router)
    return router.build(RouterParts(spec.threshold, draft, target, scorer, probe))


def _router_probe(settings: SearchSettings, draft: Engine) -> Probe:
    """The probe behind a router, held against the draft whose states it reads."""
    from prm.probe import read_probe

    router_probe_config(settings.router_model).check(
        draft.info, draft.tokenizer.fingerprint, weights_of(settings.draft)
    )
    return read_probe(Path(model_path(settings.router_model)).expanduser())


def _router_scorer(settings: SearchSettings, kind: RouterKind, target: Engine, engines: Engines) -> Scorer:
    """The reward model or the learned router behind a router, read by its codec; or what no engine loads."""
    from prm import PrmScorer

    if not runs_on_engine(settings.router_model):
        return pair_scorer(settings, settings.router_model, target)
    tokenizer, engine = target.tokenizer, engines.router
    if engine is None and engines.prm is not None and settings.router_model == settings.prm:
        engine = engines.prm
    engine = engine or make_engine(settings.router_engine, settings.router_model, settings, settings.prm_max_kv_tokens)
    if kind.judge == "router":
        config = router_config(settings.router_model, settings.router_engine)
        return PrmScorer(engine, router_reader(config, engine.tokenizer, tokenizer))
    read = {"prm": settings.router_model, "prm_codec": _router_codec(settings), "prm_engine": settings.router_engine}
    return make_scorer(settings.model_copy(update=read), engine, tokenizer)


def pair_scorer(settings: SearchSettings, prm: str, target: Engine) -> Scorer:
    """What scores the steps of draft and target and is no model: their own confidence, or a probe of the target.

    The target reads what the draft wrote for its probe, which is work of its own.

    Raises:
        ConfigError: as `search.setup.registry.make_scorer`.
    """
    from prm.probe_scorer import ProbeScorer, ReaderProbe

    reader = ModelWriter(target, settings.target)
    named = settings.model_copy(update={"prm": prm, "policy": settings.target})
    scorer = make_scorer(named, None, target.tokenizer, reader)
    return ReaderProbe(scorer, reader) if isinstance(scorer, ProbeScorer) else scorer


def router_reader(config: RouterConfig, tokenizer: Tokenizer, tree_tokenizer: Tokenizer) -> RouterReader:
    """How a learned router reads trees whose ids are those of `tree_tokenizer`."""
    from arbitrage.reading import RouterReader
    from prm import PrmConfig, codec_of

    return RouterReader(codec_of(PrmConfig(**config.reader), tokenizer, tree_tokenizer), tokenizer, config)
