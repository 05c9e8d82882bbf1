"""Whose rules hold while a page answers, when it is gone, and where there never was one."""

from __future__ import annotations

from contextlib import closing

import pytest

from .front_end import Page
from .notebook import Notebook, notebook
from .test_rules import refused, settle

pytestmark = pytest.mark.kernel

CALLS = """import itertools
from llm_magics import ScriptedModel, ToolCall, tool
@tool
def look() -> str:
    "Look."
    return "seen"
model = ScriptedModel(itertools.cycle([ToolCall("look", "{}"), "done"]))"""


def status_of(opened: Notebook) -> str:
    return str(opened.must("%llm status").bundles)


def called(opened: Notebook) -> str:
    (call,) = opened.must("%%chat -m model --no-history\nhi").transcript.tools
    return call.state


def test_rules_fail_closed_once_a_page_was_heard() -> None:
    with notebook(CALLS) as opened:
        assert "no page with the llm_magics extension has answered" in status_of(opened)
        assert called(opened) == "done"
        with closing(Page(opened, max_steps=7)) as page:
            page.send(kind="hello", turn="*")
            settle(opened, page, max_steps=7)
            assert "this page&#x27;s settings" in status_of(opened)
            assert called(opened) == "done"
            assert "allow: 7" in refused(opened, "%%chat -m model --max-steps 8\nhi")
        told = status_of(opened)  # the page is gone
        assert "every call needs approval" in told
        assert "at least ask" in told
        assert "allow: 7" in refused(opened, "%%chat -m model --max-steps 8\nhi")
        assert "looser than the rules" in refused(opened, "%%chat -m model --approve auto\nhi")
        assert called(opened) == "refused"  # nobody is there to ask


def test_a_cell_of_no_page_has_the_kernel_s_own_rules() -> None:
    with notebook(CALLS) as opened, closing(Page(opened, approve="deny")) as page:
        page.send(kind="hello", turn="*")
        settle(opened, page, approve="deny")
        assert "rules from" in str(opened.must("%llm status", None).bundles)
        (call,) = opened.must("%%chat -m model --no-history\nhi", None).transcript.tools
        assert call.state == "done"
