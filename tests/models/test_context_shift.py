"""A conversation that outgrows its context: refused by name, or its oldest turns go, whole, told, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_magics.chat.format import ChatFormat
from llm_magics.engine.hosts import open_engine
from llm_magics.errors import ContextFullError, OptionError
from llm_magics.events import ModelEnd, Notice
from llm_magics.messages import Message, ToolSpec, system, user
from llm_magics.models.base import Request, Sampling
from llm_magics.models.loading import LoadSettings
from llm_magics.models.local import LocalModel
from llm_magics.session.session import Session
from tests.engine.guess.test_draft import peaked
from tests.engine.run.test_reuse import config
from tests.engine.tiny_gguf import BOOL

# What a template does with the system prompt and the tools: in front, or within the first message of the user.
TEMPLATES = {
    "in front": (
        "{% for m in messages %}{% if m.role == 'system' %}[sys {{ m.content }}{% if tools %} tools {{ tools | tojson }}"
        "{% endif %}]{% else %}[{{ m.role }} {{ m.content }}]{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant {% endif %}"
    ),
    "in the first message": (
        "{% set ns = namespace(first=true, sys='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.sys = m.content %}{% else %}[{{ m.role }} {% if ns.first and m.role == 'user' %}{{ ns.sys }}"
        "{% if tools %} tools {{ tools | tojson }}{% endif %}: {% set ns.first = false %}{% endif %}{{ m.content }}]"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant {% endif %}"
    ),
}
N_CTX = 1024
TOOL = ToolSpec("look", "Looks.", {"type": "object", "properties": {}})
SETTINGS = Sampling(temperature=0, logit_bias=tuple((token, 1000.0) for token in range(260, 280)))  # it writes letters only


@pytest.fixture(params=["whole tokens", "a space put in front"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_file(tmp_path, space=request.param != "whole tokens")


def tiny_file(directory: Path, *, space: bool = False) -> Path:
    """A tiny model of a byte vocabulary, which may put a space in front of what it tokenises."""
    gguf = peaked()
    gguf.metadata["tokenizer.ggml.add_space_prefix"] = (BOOL, space)
    return gguf.write(directory / "tiny.gguf")


@pytest.fixture(params=TEMPLATES)
def model(request: pytest.FixtureRequest, file: Path) -> Iterator[LocalModel]:
    engine = open_engine(config(file, n_ctx=N_CTX))
    with closing(LocalModel("tiny", engine, ChatFormat.from_template(TEMPLATES[request.param]), context_shift=True)) as model:
        yield model


def conversation(n: int) -> tuple[Message, ...]:
    turns = [message for i in range(n) for message in (user(f"question {i} {'ab' * 60}"), Message("assistant", f"answer {i}"))]
    return (system("be brief"), *turns, user("the last question"))


def ask(model: LocalModel, messages: tuple[Message, ...], **changes: Any) -> ModelEnd:
    request = Request(messages, (TOOL,), "auto", sampling=SETTINGS, max_tokens=20, conversation="c", known=())
    *_, end = model.stream(replace(request, **changes))
    assert isinstance(end, ModelEnd)
    return end


def sent(model: LocalModel, end: ModelEnd) -> str:
    """The text whose ids the record says were evaluated."""
    assert end.recording["prompt_kept"] == 0
    return b"".join(model.engine.pieces(end.recording["prompt_token_ids"])).decode()


@pytest.mark.parametrize("n", [8, 30])
def test_the_oldest_turns_go_and_the_system_prompt_and_the_tools_stay(model: LocalModel, n: int) -> None:
    end = ask(model, conversation(n))
    left_out = end.usage.left_out_turns
    assert 0 < left_out < n
    text = sent(model, end)
    assert "be brief" in text
    assert '"look"' in text
    assert "the last question" in text
    assert [f"question {i} " in text for i in range(n)] == [False] * left_out + [True] * (n - left_out)
    assert [f"answer {i}]" in text for i in range(n)] == [False] * left_out + [True] * (n - left_out)
    assert len(end.recording["prompt_token_ids"]) == end.usage.prompt_tokens <= N_CTX


def test_what_has_gone_stays_out_and_the_rest_is_in_the_cache(model: LocalModel) -> None:
    messages = conversation(8)
    first = ask(model, messages)
    messages = (*messages, first.message, user("and then"))
    second = ask(model, messages)
    assert second.usage.left_out_turns == first.usage.left_out_turns
    assert second.usage.losses == ()
    assert second.usage.evaluated_tokens < 60
    assert second.usage.cached_tokens > first.usage.prompt_tokens
    other = ask(model, (*conversation(1), first.message, user("another beginning")))
    assert other.usage.left_out_turns == 0


def test_an_answer_that_outgrows_the_context_goes_on(model: LocalModel) -> None:
    messages = conversation(3)
    fits = ask(model, messages)
    assert fits.usage.left_out_turns == 0
    end = ask(model, messages, max_tokens=400)
    if end.usage.left_out_turns:
        assert end.finish_reason == "length"
        assert end.usage.completion_tokens == 400
        assert "the last question" in sent(model, end)
    else:  # the engine could not be told which tokens may go
        assert end.usage.context_used > N_CTX


def test_a_single_turn_that_does_not_fit_is_refused(model: LocalModel) -> None:
    with pytest.raises(ContextFullError):
        ask(model, (system("be brief"), user("x" * 1100)))
    with pytest.raises(ContextFullError):
        ask(model, (*conversation(6)[:-1], user("x" * 1100)))


def test_without_context_shift_it_is_an_error(file: Path) -> None:
    engine = open_engine(config(file, n_ctx=N_CTX))
    with closing(LocalModel("tiny", engine, ChatFormat.from_template(TEMPLATES["in front"]))) as model:
        with pytest.raises(ContextFullError):
            ask(model, conversation(30))
        assert ask(model, conversation(3)).usage.left_out_turns == 0


def test_a_session_tells_what_was_left_out_and_where_an_answer_was_cut_off(tmp_path: Path) -> None:
    for context_shift in (True, False):
        engine = open_engine(config(tiny_file(tmp_path), n_ctx=N_CTX))
        format = ChatFormat.from_template(TEMPLATES["in front"])
        with closing(LocalModel("tiny", engine, format, context_shift=context_shift)) as model:
            session = Session(model, system="be brief", sampling=SETTINGS, max_tokens=200)
            told: list[str] = []
            try:
                for i in range(8):
                    told += [event.text for event in session.turn(f"question {i}") if isinstance(event, Notice)]
            except ContextFullError:
                assert not context_shift
            assert any("left out" in text for text in told) is context_shift
            assert any("cut off at the end of the context of 1,024 tokens" in text for text in told) is not context_shift


@pytest.mark.parametrize(
    "settings", [{"speculation": "often"}, {"park_memory": -1}, {"park_disk": "much"}, {"park_disk": True}]
)
def test_load_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        LoadSettings(**settings)


def test_load_settings_reach_the_engine(tmp_path: Path) -> None:
    config = LoadSettings(speculation="auto", park_memory=1, park_disk=2).config(tmp_path)
    assert (config.speculation, config.park_memory, config.park_disk) == ("auto", 2**20, 2**21)
