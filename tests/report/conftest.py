"""A browser, as the viewer's tests open it."""

from tests.view.conftest import browser, page

__all__ = ["browser", "page"]
