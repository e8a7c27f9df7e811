"""A headless Chromium for the tests that look at pages; they skip if there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A quiet Chromium: no look-ups of its own, and no sandbox, which root does not get.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run", "--disable-quic", "--disable-dev-shm-usage"]


@contextmanager
def chromium(playwright: Any) -> Iterator[Any]:
    """A browser; `playwright` is the module playwright.sync_api."""
    with playwright.sync_playwright() as driver:
        path = CHROMIUM or driver.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("needs Chromium: apt-get install chromium")
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
