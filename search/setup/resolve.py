"""From what was asked to what runs: every default settled, and whatever is given and not used said in a line."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Set
from typing import Any, Generic, NamedTuple, TypeVar

from search.catalogue import METHODS, SCORERS, Method, pick, scorer_kind
from search.checkpoints.hub import holds_gguf
from search.config import METHOD_OPTIONS, TRANSPORT, SearchSettings, build
from search.errors import ConfigError
from search.setting_groups import MethodSettings, RewardModelSettings, RoutingSettings
from search.setup.engine_choice import choose_engine
from search.setup.registry import make_policy, method_options, prm_config, runs_on_engine
from search.setup.routing import OWN, choose_router, read_router, router_kind
from search.setup.run_key import engine_kind

S = TypeVar("S", bound=SearchSettings)

_ROUTING = tuple(name for name in RoutingSettings.model_fields if name != "writer")
_REWARDS = ("lookahead", *(name for name in RewardModelSettings.model_fields if name != "prm"))


@dataclasses.dataclass(frozen=True, slots=True)
class Settled(Generic[S]):
    """Settings that say what runs.

    Attributes:
        settings: with nothing left to be found out, as far as that was asked for.
        notes: what a person must know of it, a line each.
        ignored: what was given and is not used, by name; an option of the method is "options".
    """

    settings: S
    notes: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()


class Part(NamedTuple):
    """A model that a search uses."""

    role: str
    model: str
    engine: str

    @property
    def served(self) -> bool:
        """Whether it runs on servers, which then decide its precision and its room."""
        kind, colon, _ = self.engine.partition(":")
        return bool(colon) or kind in ("openai", "chat")


def parts(settings: SearchSettings) -> list[Part]:
    """The models that a search of these settings uses, settled ones."""
    if settings.writer == "model":
        used = [Part("policy", settings.policy, settings.engine)]
    else:
        used = [
            Part("draft", settings.draft, settings.draft_engine),
            Part("target", settings.target, settings.engine),
        ]
    if runs_on_engine(settings.prm):
        used.append(Part("prm", settings.prm, settings.prm_engine))
    if settings.writer == "arbitrage" and router_kind(settings.router).scores and runs_on_engine(settings.router_model):
        used.append(Part("router", settings.router_model, settings.router_engine))
    return [part for part in used if part.model != OWN]


def settle(settings: S, *, own_models: bool = False, own_scorer: bool = False, own_policy: bool = False) -> Settled[S]:
    """Settle models and method by their names alone; no file is opened and nothing is reached.

    A mini model never stands beside another model unless it is named. What the method does not use is left alone.

    Args:
        settings: as given; a field that is not set counts as not given.
        own_models: whether an object of the caller's writes.
        own_scorer: whether one scores.
        own_policy: whether one is the method.

    Raises:
        ConfigError: an unknown name, an option that no method has, models of which one must be named, or packed
            weights without a .gguf file.
    """
    given = settings.model_fields_set
    changed = settings.model_dump(exclude_unset=True, exclude_defaults=True)
    values = _values(settings)
    notes: list[str] = []
    if own_models:
        values["policy"] = OWN
    if own_scorer:
        values["prm"] = OWN
    _settle_prm(values, notes)
    if settings.writer == "arbitrage":
        values |= choose_router(build(type(settings), values), given)
    routed = bool(settings.writer == "arbitrage" and values["router_model"] == values["prm"])
    ignored: dict[str, tuple[str, Any]] = {}
    method = Method("") if own_policy else pick("method", settings.method, METHODS)
    for name, value in method.fixed.items():
        asked = getattr(settings, name)
        if name in given and asked not in (value, "auto") and not (name == "prm" and routed):
            ignored[name] = (f"method {settings.method}", value)
        values[name] = value
    if not own_policy:
        _settle_options(values, given, ignored)
    if own_scorer:
        values["prm"] = OWN
    if values["engine"] == "auto":
        _settle_engine(build(type(settings), values), values, given, notes)
    settled = build(type(settings), values)
    _check_packed(settled)
    _check_chat(settled)
    for name, cause in _idle(settled, own_policy=own_policy).items():
        if (
            (name not in TRANSPORT or name == "price")
            and name in changed
            and name not in ignored
            and not (name == "prm_engine" and routed)
        ):
            ignored[name] = (cause, None)
    notes += _left_alone(ignored, settings)
    if settled.prm == "none" and settled.width > 1 and method.unscored:
        notes.append(f"no reward model: {method.unscored}")
    if settled.prm.startswith("confidence:") and method.unsure:
        notes.append(f"confidence says how sure the policy is, not whether it is right: by it {method.unsure}")
    if settled.frontier == "rolling":
        notes.append(
            "a rolling frontier is another method: ets-rolling had 7 points less (-20 to +7) than ets on "
            "Qwen2.5-Coder-1.5B, by a probe, 60 problems; --speculate waits less for levels too, and is no other method"
        )
    return Settled(settled, tuple(notes), frozenset(ignored))


def resolve(settings: S, *, own_models: bool = False, own_scorer: bool = False, own_policy: bool = False) -> Settled[S]:
    """As `settle`, and what the files of the reward model and of the router say: how they are read.

    Args:
        settings: as for `settle`, as are the others.
        own_models: whether an object of the caller's writes.
        own_scorer: whether one scores.
        own_policy: whether one is the method.

    Raises:
        ConfigError: also where a checkpoint is not what it is to be used as, or a vote needs rewards there are none of.
    """
    settled = settle(settings, own_models=own_models, own_scorer=own_scorer, own_policy=own_policy)
    values, notes, declared = _values(settled.settings), list(settled.notes), "last"
    if settled.settings.prm not in ("none", OWN):
        config = prm_config(settled.settings.prm, settled.settings.prm_codec, settled.settings.prm_engine)
        declared, values["prm_codec"] = config.reduce, config.codec
    if settled.settings.writer == "arbitrage":
        values["prm_codec"] = read_router(settled.settings, notes) or values["prm_codec"]
    elif settings.pipeline:
        raise ConfigError("pipeline: only writer arbitrage has steps to write ahead")
    scored = settled.settings.prm != "none"
    if values["vote"] == "auto":
        values["vote"] = "weighted" if scored else "majority"
    if not scored and values["vote"] != "majority":
        raise ConfigError(f"vote {values['vote']} needs a reward model (--prm); without one the vote is majority")
    values["grader"] = "plain" if values["grader"] == "auto" else values["grader"]
    for name in ("reduce", "search_reduce"):
        values[name] = declared if values[name] == "auto" else values[name]
    return dataclasses.replace(settled, settings=build(type(settings), values), notes=tuple(notes))


def record_of(settings: SearchSettings, *, own_policy: bool = False) -> dict[str, Any]:
    """Settled settings as a run keeps them: those that are used, and none that says nothing.

    What is not there is not used, has no limit, or follows from the width.
    """
    idle = _idle(settings, own_policy=own_policy)
    values = settings.model_dump(mode="json")
    return {name: value for name, value in values.items() if name not in idle and value is not None}


def _values(settings: SearchSettings) -> dict[str, Any]:
    """All settings; the precision only where it was given, so that who loads a model can tell."""
    return settings.model_dump(exclude=None if "dtype" in settings.model_fields_set else {"dtype"})


def _mini(model: str) -> bool:
    return model.startswith("mini:")


def _settle_prm(values: dict[str, Any], notes: list[str]) -> None:
    """The reward model where none is named: the mini family's beside mini models, none beside others."""
    if values["prm"] != "auto":
        return
    writers = ("policy",) if values["writer"] == "model" else ("draft", "target")
    others = [values[name] for name in writers if not _mini(values[name])]
    values["prm"] = "none" if others else "mini:prm"
    fixed = METHODS[values["method"]].fixed if values["method"] in METHODS else {}
    if others and "prm" not in fixed:
        beside = "a model of one's own" if others[0] == OWN else repr(others[0])
        notes.append(f"prm none: no reward model was named, and mini:prm is not put beside {beside}; --prm names one")


def _settle_engine(settings: SearchSettings, values: dict[str, Any], given: Set[str], notes: list[str]) -> None:
    """The engine, and the device where none is named, that `auto` stands for."""
    used = parts(settings)
    mine = [part for part in used if part.role in ("policy", "target")]
    if not mine:
        values["engine"] = "local"
        return
    others = [part.model for part in used if part not in mine and not part.served]
    choice = choose_engine(mine[0].model, others, values["device"] if "device" in given else None)
    values |= {"engine": choice.engine, "device": choice.device}
    notes.append(f"engine auto: {choice.engine} on {choice.device}; {choice.reason}")


def _settle_options(values: dict[str, Any], given: Set[str], ignored: dict[str, tuple[str, Any]]) -> None:
    """Keep the options that the method has, each with its value; `options` win over flags of the same name.

    Raises:
        ConfigError: an option that no method has, or a value that its method does not accept.
    """
    name = values["method"]
    accepted_options, cause = method_options(name), f"method {name}"
    elsewhere = {option for other in METHODS for option in method_options(other)}
    for option in METHOD_OPTIONS:
        if values[option] is not None and option not in accepted_options:
            if option in given:
                ignored[option] = (cause, None)
            values[option] = None
    unknown = [option for option in values["options"] if option not in accepted_options]
    for option in unknown:
        if option not in elsewhere:
            accepted = ", ".join(sorted(accepted_options)) or "none"
            raise ConfigError(f"method {name} has no option {option!r}; it has: {accepted}")
    if unknown:
        left = ", ".join(f"{option} {values['options'][option]}" for option in unknown)
        ignored["options"] = (f"{cause}: {left}", None)
        values["options"] = {key: value for key, value in values["options"].items() if key in accepted_options}
    asked = {setting: values[setting] for setting in ("method", "options", *METHOD_OPTIONS)}
    policy = make_policy(build(MethodSettings, asked), "last")
    chosen = {option: getattr(policy, option) for option in accepted_options}
    for option in METHOD_OPTIONS:
        values[option] = chosen.pop(option, None)
    values["options"] = {option: value for option, value in chosen.items() if value is not None}


def _idle(settings: SearchSettings, *, own_policy: bool) -> dict[str, str]:
    """Settings that decide nothing beside the others, and why, in words that go before "does not use"."""
    used = parts(settings)
    routed = any(part.role == "router" for part in used)
    read = routed and router_kind(settings.router).judge == "prm"
    idle: dict[str, str] = {}
    if settings.writer == "model":
        idle |= dict.fromkeys(_ROUTING, "writer model")
    else:
        idle["policy"] = "writer arbitrage"
        if not routed:
            unused = ("router_engine",) if router_kind(settings.router).has_model else ("router_model", "router_engine")
            idle |= dict.fromkeys(unused, f"router {settings.router}")
    if settings.prm == "none":
        kept = ("prm_codec", "prm_max_kv_tokens") if read else ("prm_max_kv_tokens",) if routed else ()
        idle |= {name: "a search without a reward model" for name in _REWARDS if name not in kept}
    elif not runs_on_engine(settings.prm):
        idle |= dict.fromkeys(("prm_engine", *(() if read else ("prm_codec",))), f"prm {settings.prm}")
        idle |= {} if routed else {"prm_max_kv_tokens": f"prm {settings.prm}"}
    kinds = [scorer_kind(model) for model in (settings.prm, settings.router_model if read else "none")]
    wanted = {name for kind in kinds if kind is not None for name in kind.options}
    options = (name for kind in SCORERS.values() for name in kind.options)
    idle |= {name: f"prm {settings.prm}" for name in options if name not in wanted}
    if settings.until == "spent" or settings.vote in ("normalised", "best"):
        cause = "until spent" if settings.until == "spent" else f"vote {settings.vote}"
        idle |= dict.fromkeys(("confidence", "begin"), cause)
    if own_policy:
        idle |= dict.fromkeys(MethodSettings.model_fields, "a method of one's own")
    else:
        if not METHODS[settings.method].rolls:
            idle["frontier"] = f"method {settings.method}"
        accepted = method_options(settings.method)
        idle |= {name: f"method {settings.method}" for name in METHOD_OPTIONS if name not in accepted}
        policy = make_policy(settings, "last")
        if policy.pace != "level":
            idle["speculate"] = f"method {settings.method}"
        if policy.pace != "leaf":
            idle["begin"] = f"method {settings.method}"
        if "embedding" not in policy.features:
            idle |= dict.fromkeys(("embedder", "cluster_distance"), f"method {settings.method}")
    idle |= _idle_places(settings, used, embeds="embedder" not in idle)
    return idle


def _idle_places(settings: SearchSettings, used: list[Part], *, embeds: bool) -> dict[str, str]:
    """What only a model in this process has, or only one on a server."""
    idle: dict[str, str] = {}
    server = "a model on a server"
    here = [part for part in used if not part.served]
    if used and not here:
        idle["dtype"] = server
        if not embeds or settings.embedder == "tfidf":
            idle["device"] = server
    if not any(part.role in ("policy", "draft", "target") for part in here):
        idle["max_kv_tokens"] = server
    if not any(part.role in ("prm", "router") for part in here):
        idle.setdefault("prm_max_kv_tokens", server)
    if not any(part.engine == "local" for part in used):
        idle["gguf_weights"] = "a model that does not run on engine local"
    elif settings.gguf_weights == "dequantized":
        idle["gguf_weights"] = "a run that is what it was before there was a choice"  # its record is the same, too
    if not any(engine_kind(part.engine) == "chat" for part in used):
        idle["price"] = "a search without engine chat"
    if len(here) == len(used):
        idle |= dict.fromkeys(TRANSPORT, "a model in this process")
    return idle


def _check_packed(settings: SearchSettings) -> None:
    local = [part.model for part in parts(settings) if part.engine == "local"]
    if settings.gguf_weights == "packed" and local and not any(map(holds_gguf, local)):
        raise ConfigError(f"gguf_weights packed is for .gguf files, and none is among {', '.join(local)}")


def _check_chat(settings: SearchSettings) -> None:
    """A chat API gives text, and nothing else: it can write whole texts, and no more than that."""
    for part in parts(settings):
        if engine_kind(part.engine) != "chat":
            continue
        if part.role != "policy":
            raise ConfigError(
                f"a chat API gives neither token ids nor probabilities, so no {part.role} runs on {part.engine}: it "
                "takes local, sglang or openai; the policy of writer model may run on chat"
            )
        if settings.prompt in ("plain", "math-shepherd") or settings.chat_options:
            named = f"prompt {settings.prompt}" if not settings.chat_options else "chat_options"
            raise ConfigError(f"{named}: a chat server puts conversations into a template of its own; prompt is chat")
        if settings.max_thought_tokens is not None:
            raise ConfigError("max_thought_tokens: a chat API does not say how many tokens a thought has")


def _left_alone(ignored: Mapping[str, tuple[str, Any]], settings: SearchSettings) -> list[str]:
    """A line for each reason."""
    by_cause: defaultdict[str, list[str]] = defaultdict(list)
    for name, (cause, runs_with) in ignored.items():
        if name == "options":
            cause, _, shown = cause.partition(": ")
        else:
            shown = f"{name} {getattr(settings, name)}" + ("" if runs_with is None else f" (it is {runs_with})")
        by_cause[cause].append(shown)
    return [f"{cause} does not use {', '.join(shown)}; left alone" for cause, shown in by_cause.items()]
