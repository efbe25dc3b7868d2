"""From the server's settings and a request's changes to the settings of one search."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from search.catalogue import METHODS, pick
from search.config import METHOD_OPTIONS, SearchSettings, build, explain, first_error
from search.errors import ConfigError
from search.prompt.files import names_file
from search.serve.errors import ApiError, invalid_input
from search.setup.registry import runs_on_engine
from search.setup.routing import router_kind


def check_changes(changes: Mapping[str, Any]) -> None:
    """See that each of a request's settings by itself has a value of the right kind.

    Raises:
        ApiError: 422; names the setting, its value and what is accepted.
    """
    try:
        SearchSettings.model_validate(dict(changes), strict=True)
    except ValidationError as error:
        raise invalid_input(explain(SearchSettings, error), f"search.{first_error(error)['loc'][0]}") from None
    system, examples = changes.get("system_prompt"), changes.get("few_shot")
    if system is not None and names_file(system):
        raise _no_file("system_prompt", system, "the text itself; @@ at its start for @")
    if isinstance(examples, str):
        raise _no_file("few_shot", examples, "a list of objects with question and answer")


def _no_file(name: str, given: str, accepted: str) -> ApiError:
    return invalid_input(f"{name} = {given!r}: a request has no files here; accepted: {accepted}", f"search.{name}")


def merge(
    base: SearchSettings, prm: str, changes: Mapping[str, Any], engines: Mapping[str, str] = MappingProxyType({})
) -> SearchSettings:
    """The settings of one search. What the server's own method stands for, or takes as options, ends with it.

    Args:
        base: as the server was started.
        prm: the reward model that it loaded; "none" for none.
        changes: settings of the request.
        engines: where other models run that the server has, by model.

    Raises:
        ConfigError: an unknown method or router, or settings that contradict each other or need another model.
    """
    name = changes.get("method", base.method)
    fixed = pick("method", name, METHODS).fixed
    values = base.model_dump(include=base.model_fields_set)
    if name != base.method:
        for gone in (*METHOD_OPTIONS, "options", "pipeline", "frontier", *METHODS[base.method].fixed, *fixed):
            values.pop(gone, None)
        if base.method in _OWN_WIDTH and "width" not in fixed:
            values.pop("width", None)
    if changes.get("width", base.width) != base.width:
        values.pop("pipeline", None)
    values["prm"] = scorer = changes.get("prm", prm)
    if scorer != prm:  # what was said of the server's own is not said of this one
        for gone in ("prm_codec", "prm_engine", "prm_max_kv_tokens", "reduce", "search_reduce"):
            values.pop(gone, None)
    if scorer in engines:
        values["prm_engine"] = engines[scorer]
    if changes.get("policy") in engines:
        values["engine"] = engines[changes["policy"]]
    if "prm" in fixed:
        del values["prm"]
    if "prm" in fixed or scorer == "none":
        values.pop("vote", None)
    _set_writer(values, base, prm, changes)
    return build(SearchSettings, {**values, **changes})


_OWN_WIDTH = frozenset(name for name, method in METHODS.items() if "width" in method.fixed)


def _set_writer(values: dict[str, Any], base: SearchSettings, prm: str, changes: Mapping[str, Any]) -> None:
    writer = changes.get("writer", base.writer)
    if writer == "arbitrage" and base.writer == "model":
        raise ConfigError(
            "writer arbitrage: this server has no draft model; it must be started with --writer arbitrage"
        )
    if writer == "model" and "router" in changes:
        raise ConfigError("router: only writer arbitrage has one")
    if writer == "model" and base.writer == "arbitrage":
        for gone in ("draft", "target", "router", "router_model", "pipeline", "draft_engine", "router_engine"):
            values.pop(gone, None)
        values["policy"] = base.target
    if writer == "arbitrage" and "router" in changes:
        asked = router_kind(changes["router"])
        if asked is not router_kind(base.router):
            values.pop("router_model", None)
            if asked.judge == "prm" and runs_on_engine(prm):
                values["router_model"] = prm
