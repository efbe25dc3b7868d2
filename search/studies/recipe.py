"""Recipes: one YAML file says what a reproduction runs, on which models, and what it costs to run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from search.catalogue import METHODS
from search.config import EvalSettings, build, load_yaml, ungrouped
from search.errors import ConfigError
from search.setup.registry import model_path
from search.setup.resolve import settle
from search.studies.published import ABLATIONS, REBASE_TABLE_4

if TYPE_CHECKING:
    from arbitrage.training import RouterTraining

Count = Annotated[int, Field(ge=1)]
Settings = Annotated[dict[str, Any], BeforeValidator(lambda value: ungrouped(EvalSettings, value))]
"""Fields of `search.config.EvalSettings`, which a recipe has in groups; they are checked when it is read."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Part):
    """A model and the server it runs on, for the plan.

    Attributes:
        role: policy, prm, draft, target or router.
        model: path or hub id.
        parameters_billion: its weights.
        bytes_per_parameter: 2 for bf16, 0.5 for 4 bits.
        kv_bytes_per_token: over all layers, keys and values.
        gpus: it is spread over.
        launch: the line that starts its server; "" where it runs in this process.
    """

    role: Literal["policy", "prm", "draft", "target", "router"]
    model: str
    parameters_billion: Annotated[float, Field(gt=0)]
    bytes_per_parameter: Annotated[float, Field(gt=0)] = 2.0
    kv_bytes_per_token: Count
    gpus: Count = 1
    launch: str = ""


class Recipe(_Part):
    """What every reproduction has.

    Attributes:
        title: a line for people.
        notes: what a reader must know of it, one sentence each.
        settings: of every run.
        concurrency: problems side by side.
        turn: problems that one setting solves before the next has its turn, so that all see the same machine.
        models: for the plan.
    """

    title: str
    notes: tuple[str, ...] = ()
    settings: Settings
    concurrency: Count = 16
    turn: Count = 100
    models: tuple[Model, ...] = ()

    def evaluation(self, more: Settings, limit: int) -> EvalSettings:
        """The settings of one run; the papers' methods spend all their width.

        Raises:
            ConfigError: a setting that is not known, a value out of range, or one that contradicts the method.
        """
        settings = build(EvalSettings, {"until": "spent", **self.settings, **more, "limit": limit})
        ignored = settle(settings).ignored
        for name, value in METHODS[settings.method].fixed.items():
            if name in ignored:
                given = getattr(settings, name)
                raise ConfigError(f"method {settings.method} stands for {name} {value}; {name} {given} contradicts it")
        return settings


class Width(_Part):
    """One width of the table of searches.

    Attributes:
        limit: problems.
        methods: names of the recipe's methods; empty for all.
    """

    limit: Count
    methods: tuple[str, ...] = ()


class EtsRecipe(Recipe):
    """The table of searches: methods over widths.

    Attributes:
        kind: "ets".
        methods: by the name in the table, the settings that make it.
        widths: by width.
        quick: widths in place of these for a first look.
        published: whose rows of REBASE's tables are printed beside ours.
        published_settings: settings under which those rows were measured, for the notes.
    """

    kind: Literal["ets"] = "ets"
    methods: dict[str, Settings]
    widths: dict[Count, Width]
    quick: dict[Count, Width] = {}
    published: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "rebase" not in self.methods:
            raise ValueError("methods must hold rebase, with which all others are compared")
        for widths in (self.widths, self.quick):
            for width, at_width in widths.items():
                for name in at_width.methods or self.methods:
                    if name not in self.methods:
                        raise ValueError(f"width {width} names the method {name!r}, which the recipe does not have")
                    self.evaluation(self.method(name, width), at_width.limit)
        if self.published is not None and self.published not in REBASE_TABLE_4:
            raise ValueError(f"published must be one of {', '.join(REBASE_TABLE_4)}")
        return self

    def method(self, name: str, width: int) -> Settings:
        """The settings of a method at a width."""
        return {"method": name, "width": width, **self.methods[name]}


class Routers(_Part):
    """Routers over their thresholds.

    Attributes:
        limit: problems.
        thresholds: by kind of router; `never` and `always`, the ends, are always run.
        shares: of drafted steps to be escalated; each adds a threshold to random, rsd and probe: itself, and those that
            the probe's record keeps for that share of its held-out steps.
        latency: routers that are also timed, one problem at a time.
        latency_limit: problems for that; 0 for none.
        ablation_limit: problems walked for the held-out steps of the router ablations; 0 for none.
    """

    limit: Count
    thresholds: dict[Literal["random", "rsd", "judge", "arbitrage", "probe", "oracle"], tuple[float, ...]]
    shares: tuple[float, ...] = ()
    latency: tuple[str, ...] = ()
    latency_limit: Annotated[int, Field(ge=0)] = 0
    ablation_limit: Annotated[int, Field(ge=0)] = 0

    def names(self) -> list[str]:
        """All routers, the two ends first."""
        return ["never", "always", *(f"{kind}:{value:g}" for kind, grid in self.thresholds.items() for value in grid)]


class Steps(_Part):
    """Problems whose steps are collected, draft and target side by side.

    Attributes:
        data: their source, as `ets eval --data`.
        skip: problems left out before them.
        limit: problems.
        temperature: of the steps.
    """

    data: str
    skip: Annotated[int, Field(ge=0)] = 0
    limit: Count
    temperature: Annotated[float, Field(ge=0)] = 0.0


class Ablation(_Part):
    """One router of the ablations, to be trained.

    Attributes:
        classes, annotate, balance: as the options of `ets router train`.
    """

    classes: Literal["2", "4", "4-ordinal"] = "2"
    annotate: bool = True
    balance: bool = False


class AblationTraining(_Part):
    """On what and how all routers of the ablations are trained.

    Attributes:
        data: "train" and "dev".
        settings: further fields of `arbitrage.training.RouterTraining`.
        tags: `draft_tag` and `target_tag`, the marks of the writers.
    """

    data: dict[Literal["train", "dev"], Steps]
    settings: dict[str, Any] = {}
    tags: dict[str, str] = {}

    def training(self) -> RouterTraining:
        """The training's settings, but for what an ablation changes."""
        from arbitrage.training import RouterTraining

        return RouterTraining(**self.settings)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if set(self.data) != {"train", "dev"}:
            raise ValueError("data must hold train and dev")
        if not set(self.tags) <= {"draft_tag", "target_tag"}:
            raise ValueError("tags may hold draft_tag and target_tag")
        try:
            self.training()
        except TypeError as error:
            raise ValueError(f"settings: {error}") from None
        return self


class ArbitrageRecipe(Recipe):
    """The tables of routers: accuracy against acceptance, cost and latency, and ablations.

    Attributes:
        kind: "arbitrage".
        routers, quick: what is run, and what for a first look.
        router_models: models behind a kind of router, where it is not the default.
        remember: whether all routers share what draft and target wrote, also with a run that was broken off. Nothing is
            written twice then, and no seconds are measured.
        pair: the published pair, for the headings.
        ablations: routers to be measured, by the name of their row in the published table: one that is there, by path
            or `mini:router`, or what is to be trained.
        ablation_training: how these are trained.
        ablation_skip: problems left out before those of the held-out steps.
    """

    kind: Literal["arbitrage"] = "arbitrage"
    routers: Routers
    quick: Routers | None = None
    router_models: dict[str, str] = {}
    remember: bool = False
    pair: str = ""
    ablations: dict[str, str | Ablation] = {}
    ablation_training: AblationTraining | None = None
    ablation_skip: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for part in (self.routers, *([self.quick] if self.quick else [])):
            if "rsd" not in part.thresholds or not {"arbitrage", "probe"} & part.thresholds.keys():
                raise ValueError("thresholds must hold rsd, and arbitrage or probe, which are compared")
            if self.remember and part.latency_limit:
                raise ValueError("remember: what is shared takes no time; latency_limit must be 0")
            for name in (*part.names(), *part.latency):
                self.evaluation(self.router(name), part.limit)
        for name in self.ablations:
            if name not in ABLATIONS:
                raise ValueError(f"ablation {name!r} is none of the published ones: {', '.join(ABLATIONS)}")
        if self.ablation_training is None and any(
            isinstance(ablation, Ablation) for ablation in self.ablations.values()
        ):
            raise ValueError("ablations that are to be trained need ablation_training")
        return self

    def names(self, part: Routers) -> list[str]:
        """All routers of a part, those of its shares too.

        Raises:
            ConfigError: shares, and no probe whose record keeps their thresholds.
        """
        if not part.shares:
            return part.names()
        from prm.probe import read_config

        folder = self.router_models.get("probe", "mini:probe")
        record = read_config(Path(model_path(folder)).expanduser()).record
        kept = {"probe": record.get("thresholds", {}), "rsd": record.get("rsd_thresholds", {})}
        more: dict[str, list[float]] = {"random": [*part.shares], "rsd": [], "probe": []}
        for kind, share in ((kind, share) for kind in kept for share in part.shares):
            if (threshold := kept[kind].get(str(share))) is None:
                known = ", ".join(kept[kind]) or "none: train it anew"
                raise ConfigError(f"share {share:g}: the record of probe {folder} keeps thresholds of {known}")
            more[kind].append(threshold)
        given: dict[str, tuple[float, ...]] = dict(part.thresholds.items())
        grids = {kind: (*given.get(kind, ()), *more.get(kind, ())) for kind in dict.fromkeys((*more, *given))}
        return part.model_copy(update={"thresholds": grids}).names()

    def router(self, name: str) -> Settings:
        """The settings of a router: a greedy chain."""
        kind = name.partition(":")[0]
        model = {"router_model": self.router_models[kind]} if kind in self.router_models else {}
        chain = {"method": "chain", "prm": "none", "prm_codec": "auto", "temperature": 0.0}
        return {**chain, "writer": "arbitrage", "router": name, **model}


AnyRecipe = TypeVar("AnyRecipe", EtsRecipe, ArbitrageRecipe)
SCHEMAS: Mapping[str, Any] = {"ets": EtsRecipe, "arbitrage": ArbitrageRecipe}
"""By the paper that is reproduced, whose study is `search.studies.reproduce_PAPER`."""

_FOLDER = files("search.studies") / "recipes"


def recipe_names(kind: str) -> list[str]:
    """The shipped recipes of a kind."""
    folder = Path(str(_FOLDER)) / kind
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))


def load_recipe(schema: type[AnyRecipe], name: str) -> AnyRecipe:
    """A shipped recipe by name, or one from a .yaml file.

    Raises:
        ConfigError: there is none of this name, or it does not fit the schema; says where.
    """
    kind = schema.model_fields["kind"].default
    file = Path(name) if name.endswith((".yaml", ".yml")) else Path(str(_FOLDER)) / kind / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"recipe {name!r}: none of {', '.join(recipe_names(kind))}, and no .yaml file")
    try:
        return schema(**load_yaml(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise ConfigError(f"recipe {name}, {where}: {first['msg']}") from None
    except ConfigError as error:
        raise ConfigError(f"recipe {name}: {error}") from None
