"""From the server's settings and a request's changes to the settings of one search."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from search.catalogue import METHODS, pick
from search.config import SearchSettings, build, explain, first_error
from search.errors import ConfigError
from search.prompt.files import names_file
from search.serve.errors import ApiError, invalid_input
from search.setting_groups import MethodSettings, RewardModelSettings, RoutingSettings
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
    """The settings of one search. What was said of a part of the server's own ends where the request has another.

    Args:
        base: as the server was started.
        prm: the reward model that it loaded; "none" for none.
        changes: settings of the request.
        engines: where other models run that the server has, by model.

    Raises:
        ConfigError: an unknown method or router, or settings that contradict each other or need another model.
    """
    method, scorer = changes.get("method", base.method), changes.get("prm", prm)
    fixed = pick("method", method, METHODS).fixed
    writer = _writer(base, changes)
    router = changes.get("router", base.router)
    routes_anew = writer == "arbitrage" and router_kind(router) is not router_kind(base.router)
    ended: set[str] = set()
    if method != base.method:
        ended |= {*MethodSettings.model_fields, *METHODS[base.method].fixed, *fixed}
    if method != base.method or changes.get("width", base.width) != base.width:
        ended.add("pipeline")
    if scorer != prm:
        ended |= RewardModelSettings.model_fields.keys()
    if "prm" in fixed or scorer == "none":
        ended |= {"prm", "vote"}
    if writer != base.writer:
        ended |= RoutingSettings.model_fields.keys()
    if routes_anew:
        ended.add("router_model")
    values = base.model_dump(include=base.model_fields_set - ended)
    if "prm" not in fixed:
        values["prm"] = scorer
    if scorer in engines:
        values["prm_engine"] = engines[scorer]
    if writer != base.writer:
        values["policy"] = base.target
    if changes.get("policy") in engines:
        values["engine"] = engines[changes["policy"]]
    if routes_anew and router_kind(router).judge == "prm" and runs_on_engine(prm):
        values["router_model"] = prm
    return build(SearchSettings, {**values, **changes})


def _writer(base: SearchSettings, changes: Mapping[str, Any]) -> str:
    writer: str = changes.get("writer", base.writer)
    if writer == "arbitrage" and base.writer == "model":
        raise ConfigError(
            "writer arbitrage: this server has no draft model; it must be started with --writer arbitrage"
        )
    if writer == "model" and "router" in changes:
        raise ConfigError("router: only writer arbitrage has one")
    return writer
