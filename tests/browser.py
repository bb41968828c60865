"""The headless Chromium that the tests look at pages with, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

_PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(_PROGRAM is None, reason="no chromium or chrome on this machine")
#: Far more than any step takes, so that no test depends on the machine's load.
PATIENCE_MS = 480_000


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """A browser; while it is open this thread has a running event loop, so nothing else may start one."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_PROGRAM, args=["--no-sandbox", *options], timeout=PATIENCE_MS
        )
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


def new_context(browser: Browser) -> BrowserContext:
    """A visitor of his own, with patience."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    return context


def complaints(page: Page, *, wait_ms: int = 300) -> list[str]:
    """What axe finds on a page, on a desk and on a phone, in the light and in the dark: rule, and where."""
    found = []
    for scheme in ("light", "dark"):
        for width in (1280, 390):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(wait_ms)  # what scripts and transitions change
            result = Axe().run(page)
            assert result.response["passes"]
            found += [
                f"{scheme} {width}: {one['id']} {node['target']}"
                for one in result.response["violations"]
                for node in one["nodes"]
            ]
    return found
