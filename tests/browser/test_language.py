"""JupyterLab in another language: a language pack with some words of ours, as pip would install it beside the server."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo

from .driver import Notebook, jupyter_server, write_notebook
from .test_extension import ASK, TOOLS, press

pytestmark = pytest.mark.browser

PACK = "jupyterlab_language_pack_de_DE"
GERMAN = {
    "Approve this call": ["Aufruf erlauben"],
    "May this run?": ["Darf das laufen?"],
    "waits for your approval": ["wartet auf Ihr Ja"],
    "Make This Cell a Tool…": ["Zelle zum Werkzeug machen…"],
    "tool %1": ["Werkzeug %1"],
    "done": ["fertig"],
    "%2 token": ["%2 Token zählt", "%2 Token zählen"],
}
SETTING = ("settings", "Reasoning", "Gedankengang")  # its context in the catalogue, our title, theirs


def install_pack(target: Path) -> None:
    """Write a German language pack: JSON for the page, a compiled catalogue for the titles of the settings."""
    catalogues = target / PACK / "locale" / "de_DE" / "LC_MESSAGES"
    catalogues.mkdir(parents=True)
    (target / PACK / "__init__.py").touch()
    head = {"domain": "llm_magics", "language": "de-DE", "plural_forms": "nplurals=2; plural=(n != 1);", "version": "1"}
    (catalogues / "llm_magics.json").write_text(json.dumps({"": head, **GERMAN}), encoding="utf-8")
    settings = Catalog(locale="de_DE", domain="llm_magics")
    context, title, translated = SETTING
    settings.add(title, translated, context=context)
    with (catalogues / "llm_magics.mo").open("wb") as compiled:
        write_mo(compiled, settings)
    about = target / f"{PACK}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACK}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[jupyterlab.languagepack]\nde_DE = {PACK}\n")


def test_our_words_are_in_the_language_of_the_page(browser: Any, tmp_path: Path) -> None:
    root = tmp_path / "lab"
    root.mkdir()
    install_pack(tmp_path / "packages")
    with jupyter_server(root, beside=tmp_path / "packages") as base:
        chosen = root / "settings" / "@jupyterlab" / "translation-extension" / "plugin.jupyterlab-settings"
        chosen.parent.mkdir(parents=True)
        chosen.write_text('{"locale": "de_DE"}')
        write_notebook(root / "n.ipynb", [TOOLS, ASK, "%%tool double(x: int)\nx * 2"])
        notebook = Notebook(browser.new_page(), base, root, "n.ipynb")
        notebook.page.set_default_timeout(60_000)
        notebook.open()
        try:
            notebook.run(0)
            notebook.run(1, wait=False)
            notebook.wait_for_text(1, "Darf das laufen?")
            assert "wartet auf Ihr Ja" in notebook.text(1)
            press(notebook, 1, "Aufruf erlauben")
            notebook.ran()
            notebook.wait_for_text(1, "Token zählen")
            assert "fertig" in notebook.text(1)
            assert "It rains in Oslo." in notebook.output(1).text_content()  # what a tool says is not ours to translate
            notebook.page.locator('[data-llm-tool="Werkzeug double"]').wait_for()
            label = notebook.page.evaluate("window.jupyterapp.commands.label('llm-magics:edit-tool')")
            assert label == "Zelle zum Werkzeug machen…"
            with urllib.request.urlopen(f"{base}/lab/api/settings/llm-magics:settings") as answer:
                assert json.load(answer)["schema"]["properties"]["reasoning"]["title"] == "Gedankengang"
        finally:
            notebook.shut_down()
            notebook.page.close()
