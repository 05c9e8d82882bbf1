"""Sixty payloads wherever a model or a tool can write, in a trusted notebook: nothing runs, is fetched, or leads out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.payloads import PAYLOADS

from .conftest import Open
from .test_chat import open_either  # noqa: F401  (a fixture)

pytestmark = pytest.mark.browser

SETUP = f"""%load_ext llm_magics
import json
from llm_magics import Message, ScriptedModel, ToolCall, tool
from llm_magics.messages import assistant
PAYLOADS = {list(PAYLOADS)!r}
class Rich:
    def __init__(self, text): self.text = text
    def _repr_html_(self): return self.text
    def _repr_svg_(self): return "<svg xmlns='http://www.w3.org/2000/svg'>" + self.text + "</svg>"
    def _repr_markdown_(self): return self.text
@tool
def echo(text: str) -> str:
    "Give it back."
    from IPython.display import display
    print(text)
    display(Rich(text))
    return text
@tool
def fail(text: str) -> str:
    "Fail."
    raise ValueError(text)
def steps():
    for text in PAYLOADS:
        argument = json.dumps({{"text": text}})
        yield Message("assistant", text, reasoning=text, tool_calls=(ToolCall(text, text, "c1"),))
        yield [ToolCall("echo", argument, "c2"), ToolCall("fail", argument, "c3")]
        yield text
model = ScriptedModel(steps())"""
RUN = """for _ in PAYLOADS:
    try:
        get_ipython().run_cell_magic("chat", "-m model -t echo,fail --approve auto --no-history", "go")
    except Exception as error:
        print(repr(error))"""
WATCH = """
window.__hits = [];
window.lm_hit = number => { window.__hits.push(number) };
null;
"""
LEADS_OUT = """() => Array.from(document.querySelectorAll('.jp-OutputArea-output *')).filter(e =>
  ['SCRIPT', 'IFRAME', 'OBJECT', 'EMBED', 'FORM', 'BASE', 'META', 'LINK'].includes(e.tagName)
  || Array.from(e.attributes).some(a => a.name.startsWith('on') || /^\\s*(javascript|vbscript|data:text)/i.test(a.value))
  || (e.tagName === 'A' && e.hasAttribute('href') && !e.href.startsWith(location.origin) && !/noopener/.test(e.rel))
).map(e => e.outerHTML.slice(0, 200))"""


def test_nothing_that_was_written_runs_or_fetches(open_either: Open) -> None:  # noqa: F811
    notebook = open_either([SETUP, RUN])
    fetched: list[str] = []
    notebook.page.on("request", lambda request: fetched.append(request.url))
    notebook.page.on("popup", lambda page: fetched.append(page.url))
    notebook.page.add_init_script(WATCH)
    notebook.page.evaluate(WATCH)
    notebook.run(0)
    notebook.run(1)
    outputs = notebook.outputs(1)
    assert len([o for o in outputs if o["output_type"] == "display_data"]) == len(PAYLOADS)
    check(notebook, fetched)
    notebook.save()
    notebook.open()
    notebook.output(1).get_by_text("lm_hit").first.wait_for(state="attached")
    check(notebook, fetched)


def check(notebook: Any, fetched: list[str]) -> None:
    notebook.page.evaluate("document.querySelectorAll('.jp-OutputArea details').forEach(d => { d.open = true })")
    notebook.page.wait_for_timeout(1000)
    assert notebook.page.evaluate("window.__hits") == []
    assert [url for url in fetched if not url.startswith((notebook.base, "data:", "blob:"))] == []
    assert notebook.page.evaluate(LEADS_OUT) == []
