"""The page at the server's root: what this is, how it is asked, and where to look on."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from search.catalogue import METHODS

if TYPE_CHECKING:
    from search.serve.service import Service

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: searched answers</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ overflow-x: auto; padding: .8rem; border: 1px solid #8884; border-radius: 6px; }}
dt {{ font-weight: 600; }} dd {{ margin: 0 0 .6rem; }}
</style>
<h1>{name}</h1>
<p>An OpenAI-compatible server whose answers are searched: method <b>{method}</b> at width <b>{width}</b>, scored by
<b>{prm}</b>. Give a client <code>{base}/v1</code> as its base URL.</p>
<pre>curl -s {base}/v1/chat/completions -H 'Content-Type: application/json' -d '{{
  "model": "{name}", "messages": [{{"role": "user", "content": "What is 12 * 12?"}}]}}'</pre>
<dl>
<dt>Another method, width or scorer</dt>
<dd>by the model's name, <code>{name}@beam-8</code> or <code>{name}@beam-8@none</code>; by the base URL,
<code>/beam-8/none/v1</code>; or by <code>search</code> in the body. Methods: {methods}. Scorers: {scorers}.</dd>
<dt>Models</dt><dd>{policies}</dd>
</dl>
<ul>
<li><a href="live">the searches as they grow</a></li>
<li><a href="v1/models">models</a>, <a href="openapi.json">every field and limit (OpenAPI)</a></li>
<li><a href="metrics">metrics for Prometheus</a>, <a href="health">health</a></li>
<li>documentation: <code>docs/serve.md</code> of the project, and <code>ets serve --help</code></li>
</ul>
"""


def home(service: Service, base: str) -> str:
    """The page of one server, which is reached at `base`."""
    settings = service.searches.settings
    shown = {
        "name": service.name,
        "method": settings.method_name,
        "width": str(settings.width),
        "prm": next(iter(service.scorers)),
        "base": base,
        "methods": ", ".join(METHODS),
        "scorers": ", ".join(service.scorers),
        "policies": ", ".join(service.policies),
    }
    return _PAGE.format(**{name: escape(text) for name, text in shown.items()})
