"""Servers and pages for the browser tests: one server with the extension, one without, one browser for the whole run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .driver import CHROMIUM_OPTIONS, Notebook, chromium_path, jupyter_server, write_notebook

Open = Callable[..., Notebook]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    if path is None:
        pytest.fail("No Chromium found; install it with: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS, headless=True)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with the extension."""
    root = tmp_path_factory.mktemp("lab")
    with jupyter_server(root) as base:
        yield base, root


@pytest.fixture(scope="session")
def bare_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server whose pages do not load the extension."""
    root = tmp_path_factory.mktemp("bare")
    with jupyter_server(root, extension=False) as base:
        yield base, root


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, as the extension's own lock file names it."""
    source = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        pytest.fail("axe-core is not installed; run: cd labextension && jlpm install")
    return source.read_text(encoding="utf-8")


def _opener(browser: Any, server: tuple[str, Path], opened: list[Notebook], extension: bool) -> Open:
    base, root = server

    def open_notebook(sources: Sequence[str], app: str = "lab", record: bool = False, **page_options: Any) -> Notebook:
        name = f"n{next(_numbers)}.ipynb"
        write_notebook(root / name, sources)
        page = browser.new_page(viewport={"width": 1100, "height": 900}, **page_options)
        page.set_default_timeout(60_000)
        notebook = Notebook(page, base, root, name, app)
        opened.append(notebook)
        if record:
            notebook.record()
        notebook.open()
        assert page.evaluate("window.jupyterapp.hasPlugin('llm-magics:transcripts')") is extension
        return notebook

    return open_notebook


def _close(opened: list[Notebook]) -> None:
    for notebook in opened:
        notebook.shut_down()
        notebook.page.close()


@pytest.fixture
def open_notebook(browser: Any, lab: tuple[str, Path]) -> Iterator[Open]:
    """Write a notebook of these cell sources and open it where the extension is."""
    opened: list[Notebook] = []
    yield _opener(browser, lab, opened, True)
    _close(opened)


@pytest.fixture
def open_bare(browser: Any, bare_lab: tuple[str, Path]) -> Iterator[Open]:
    """The same where the extension is not."""
    opened: list[Notebook] = []
    yield _opener(browser, bare_lab, opened, False)
    _close(opened)
