"""What tests of the demo share."""

import shutil

import pytest

from ddpm.demo.models import ModelStore

OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def digits():
    return ModelStore(["mnist"], "cpu")["mnist"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as p:
        try:
            browser = p.chromium.launch(executable_path=found, args=OPTIONS)
        except playwright.Error:
            pytest.skip("there is no Chromium here")
        yield browser
        browser.close()
