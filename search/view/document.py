"""The viewer's page: one HTML file with its style, its script and its data, which asks nothing of a network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

SCRIPTS = ("state", "data", "layout", "drawing", "selection", "problems", "input", "live")
"""The parts of the page's one script, in the order in which they are read."""

_IN_INDEX = ("id", "problem", "reference", "answer", "correct", "error", "running", "method", "width", "num_nodes")
_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(title: str, problems: Sequence[Mapping[str, Any]], live: str | None = None) -> str:
    """One self-contained HTML page; it works from a file as well as from a server.

    Texts of the data reach the browser as JSON and are shown as text; a content policy in the page forbids any
    other script, and any request but those to `live`.

    Args:
        title: the page's heading.
        problems: what `problem_view` gave, in the order of the list.
        live: address of a server's list of searches, seen from the page. The page then polls it, and `{live}/{id}`
            for the search that is shown. None for a page of what is kept.
    """
    index = [{name: problem.get(name) for name in _IN_INDEX} for problem in problems]
    parts = [data_element("index", {"title": title, "live": live, "problems": index})]
    parts += [data_element(f"problem-{place}", problem) for place, problem in enumerate(problems)]
    return viewer(html.escape(title.encode("utf-8", "replace").decode()), "\n".join(parts), live)


def viewer(title: str, data: str, live: str | None = None) -> str:
    """The page around its data: JSON elements, as `page` makes them. The title is HTML."""
    style, script = asset("page.css"), viewer_script()
    policy = html.escape(content_policy([style], [script], live))
    return filled(asset("page.html"), title=title, policy=policy, style=style, script=script, data=data)


def viewer_script() -> str:
    """The page's one script."""
    return "\n".join(asset(f"script/{name}.js") for name in SCRIPTS)


def content_policy(styles: Sequence[str], scripts: Sequence[str], live: str | None = None) -> str:
    """What a page may do: these very sources, requests to `live`, and nothing else."""
    allowed = [" ".join(map(_hash, sources)) for sources in (styles, scripts)]
    return (
        f"default-src 'none'; style-src {allowed[0]}; script-src {allowed[1]}; img-src data:; "
        f"connect-src {_origin(live)}; base-uri 'none'; form-action 'none'"
    )


def filled(template: str, **values: str) -> str:
    """A template with its {{names}} replaced, in one go: what is put in is not read again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def data_element(name: str, values: Mapping[str, Any]) -> str:
    """A JSON element; nothing in it can end it, and letters beyond ASCII are escaped, lone surrogates included."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False).translate(_IN_SCRIPT)
    return f'<script type="application/json" id="{name}">{text}</script>'


def asset(name: str) -> str:
    """A file of this package."""
    return (files("search.view") / name).read_text(encoding="utf-8")


def _origin(live: str | None) -> str:
    """Where a content policy lets the page send requests."""
    if live is None:
        return "'none'"
    parts = urlsplit(live)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else "'self'"


def _hash(source: str) -> str:
    """The name under which a content policy allows one inline source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
