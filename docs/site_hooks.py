"""What the site's builder is told beside mkdocs.yml: links that leave docs/ become the path in the repository."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^]\n]+)\]\(\.\./([^)\n]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its links to files of the repository as plain paths, since the site does not hold them."""
    return _OUTSIDE.sub(lambda link: f"`{link[2]}`" if link[2] in link[1] else f"{link[1]} (`{link[2]}`)", markdown)
