"""The rules of the page that sent a cell: asked for, waited for once, and kept when it falls silent."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from llm_magics.kernel.page import live
from llm_magics.kernel.page.live import link_of
from llm_magics.kernel.page.pagerules import PageRules

from .fake_kernel import FakeKernel


def answering(kernel: FakeKernel, *sessions: str, **settings: Any) -> None:
    """Answer the question for rules, as the pages of these sessions would."""

    def send(socket: Any, msg_type: str, content: dict[str, Any], ident: bytes) -> None:
        asked = content["data"]["session"]
        if asked in sessions:
            said = {"kind": "settings", "turn": "*", "settings": settings}
            threading.Thread(target=lambda: kernel.receive(session=asked, **said)).start()

    kernel.session.send = send  # type: ignore[method-assign]


def silent(kernel: FakeKernel) -> list[str]:
    """Answer nothing; gives the sessions that were asked."""
    asked: list[str] = []
    kernel.session.send = lambda socket, kind, content, ident: asked.append(content["data"]["session"])  # type: ignore[method-assign]
    return asked


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PATIENCE", 0.01)


def test_the_page_that_sent_the_cell_is_asked_for_its_rules_and_waited_for(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    answering(kernel, "page", approve="ask")
    assert link.rules("page", "r1") == PageRules({"approve": "ask"}, "told")


@pytest.mark.usefixtures("impatient")
def test_a_page_that_falls_silent_is_asked_once_a_request_and_its_last_rules_stay(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    answering(kernel, "page", approve="ask")
    link.rules("page", "r1")
    asked = silent(kernel)
    for request in ("r1", "r2", "r2", "r3"):
        said = link.rules("page", request)
        assert said == PageRules({"approve": "ask"}, "told" if request == "r1" else "silent")
    assert asked == ["page", "page"]
    kernel.receive(kind="hello", turn="*")
    assert link.rules("page", "r3").standing == "told"


@pytest.mark.usefixtures("impatient")
def test_where_no_page_was_ever_heard_none_is_waited_for_twice(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_of(kernel)
    silent(kernel)
    assert link.rules("page", "r1") == PageRules({}, "none")
    monkeypatch.setattr(live, "_PATIENCE", 3600.0)
    assert link.rules("page", "r2") == PageRules({}, "none")


@pytest.mark.usefixtures("impatient")
def test_a_page_that_never_told_its_rules_has_those_of_another_and_does_not_count_as_answering(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    kernel.receive(kind="hello", turn="*")
    assert link.rules("page", "r1") == PageRules({}, "silent")
    kernel.receive(session="other", kind="settings", turn="*", settings={"max_steps": 3})
    assert link.rules("page", "r2") == PageRules({"max_steps": 3}, "silent")


def test_each_page_has_rules_of_its_own(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    answering(kernel, "strict", approve="deny")
    assert link.rules("strict", "r1").settings == {"approve": "deny"}
    answering(kernel, "strict", "lax")
    kernel.receive(session="lax", kind="settings", turn="*", settings={})
    assert link.rules("lax", "r2").settings == {}
    assert link.rules("strict", "r1").settings == {"approve": "deny"}


def test_what_is_no_object_of_rules_changes_none(kernel: FakeKernel) -> None:
    link = link_of(kernel)
    answering(kernel, "page", approve="ask")
    link.rules("page", "r1")
    kernel.receive(kind="settings", turn="*", settings="ask")
    kernel.receive(kind="hello", turn="*", settings={})
    assert link.rules("page", "r1").settings == {"approve": "ask"}
    kernel.receive(kind="settings", turn="*", settings={})
    assert link.rules("page", "r1").settings == {}
