"""What nbconvert makes of saved answers without any flag: markdown without style sheets, HTML that keeps its lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from llm_magics.kernel.page.notebook import bundle_of
from llm_magics.segments import TextSegment, ToolSegment
from llm_magics.transcript import Transcript
from llm_magics.views.card import action_bundle, card_bundle, note_bundle, table_bundle
from llm_magics.views.preview import preview_bundle

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "labextension" / "jupyter-config"
SOURCE = "# Count\nfor i in range(3):\n    print(i)"
ANSWER = "It costs $5 and $10, or $x^2$.\n\n```python\nif a:\n\n    b = 1\n```\n"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    tool = ToolSegment(0, "count", "c1", "{}", "done", source=SOURCE, result="fine")
    bundles = [
        bundle_of(Transcript(turn="t", model="tiny", state="stop", segments=(tool, TextSegment(ANSWER)))),
        card_bundle("A <card>", [("context", "512")]),
        note_bundle("A *note*."),
        table_bundle(["name"], [["tiny"]]),
        preview_bundle([("user", "Hello", [1, 2])], 512),
        action_bundle("Load tiny", "%load_model tiny"),
    ]
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in bundles]
    path = tmp_path / "book.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%%chat\nHello", outputs=outputs)]), path)
    return path


def exported(book: Path, form: str, *flags: str) -> str:
    """What ``nbconvert --to form`` writes where the package is installed, with the configuration that it brings."""
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": str(CONFIG)}
    command = [sys.executable, "-m", "nbconvert", "--to", form, *flags, "--stdout", str(book)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


def test_markdown_is_markdown(book: Path) -> None:
    text = exported(book, "markdown")
    assert "<style" not in text
    assert "<div" not in text
    assert ANSWER.replace("$5", "\\$5").replace("$10", "\\$10").strip() in text
    for said in ("A <card>", "  context  512", "A \\*note\\*.", "tiny", "Hello", "To continue, run %load_model tiny"):
        assert said in text


def test_a_cell_s_source_keeps_its_lines_in_html(book: Path) -> None:
    html = exported(book, "html", "--theme", "dark")
    start = html.index("What ran")
    assert html[start:].count("\n", 0, html[start:].index("</pre>")) >= 2
    assert "from # Count" not in html


def test_the_package_brings_the_configuration_to_the_command_line_and_to_the_server() -> None:
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    targets = {"etc/jupyter/jupyter_nbconvert_config.json", "etc/jupyter/jupyter_server_config.d/llm_magics.json"}
    assert set(shared.values()) == targets
    contents = [json.loads((ROOT / source).read_text()) for source in shared]
    assert contents[0] == contents[1]
