"""The tree viewer: searches as one page that needs nothing but a browser."""

from search.view.document import page
from search.view.problem import problem_view

__all__ = ["page", "problem_view"]
