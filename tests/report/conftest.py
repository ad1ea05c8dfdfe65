"""Tests that open pages in a browser have a marker, as it takes one."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: opens pages in headless Chromium, if that is on PATH")
