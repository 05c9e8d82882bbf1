"""JSON under a grammar ends complete within its limits, in every engine, and says which limit ended it."""

from __future__ import annotations

import json

import pytest

from llm_magics.engine.values import Engine, GenerateRequest, SamplerSettings
from llm_magics.errors import SchemaError
from tests.engine.guides import AsJson

from .engines import GREEDY, prompt_of, run

pytestmark = pytest.mark.model

NUMBERS = 'start: "[" (/[0-9]{1,3}/ (", " /[0-9]{1,3}/)*)? "]"'


@pytest.mark.parametrize(
    ("max_tokens", "soft", "room", "ended", "most"),
    [
        (60, None, 900, "limit", 60),
        (700, None, 900, "soft", 500),
        (700, 90, 900, "soft", 90),
        (None, None, 80, "context", 80),
    ],
)
def test_json_ends_within_its_limit_and_says_which(
    engine: Engine, max_tokens: int | None, soft: int | None, room: int, ended: str, most: int
) -> None:
    prompt = prompt_of(engine)
    prompt = prompt[:1] * (engine.info.n_ctx - room - len(prompt)) + prompt
    bracket = {engine.tokenize(text, special=False)[-1] for text in ("]", " ]", "1]", "7]")}
    bans = tuple((token, float("-inf")) for token in bracket)  # so that it does not end; nor does it repeat itself
    at_random = SamplerSettings(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=5, logit_bias=bans)
    _, end = run(engine, GenerateRequest(prompt, at_random, max_tokens, guide=AsJson(grammar=NUMBERS), soft_limit=soft))
    assert isinstance(json.loads(end.text), list)
    assert (end.hurried, end.reason) == (ended, "stop")
    assert most * 3 // 4 <= len(end.ids) <= most


def test_json_that_repeats_itself_ends_and_says_so(engine: Engine) -> None:
    again = 'start: "[" /7(, 7)*/ "]"'
    likes = SamplerSettings(temperature=0, logit_bias=((engine.tokenize("7,", special=False)[-1], 100.0),))
    _, end = run(engine, GenerateRequest(prompt_of(engine), likes, max_tokens=900, guide=AsJson(grammar=again)))
    assert set(json.loads(end.text)) == {7}
    assert (end.hurried, end.reason) == ("repeats", "stop")


def test_json_that_has_no_room_is_refused_with_the_reason(engine: Engine) -> None:
    grammar = 'start: "[" /7(, 7){60}/ "]"'
    with pytest.raises(SchemaError, match=r"takes about \d+ tokens; 20 are allowed.*--max-tokens"):
        run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=20, guide=AsJson(grammar=grammar)))
    prompt = prompt_of(engine)
    full = prompt[:1] * (engine.info.n_ctx - 20 - len(prompt)) + prompt
    with pytest.raises(SchemaError, match=r"tokens; 20 are left of the context.*\(ctx\)"):
        run(engine, GenerateRequest(full, GREEDY, guide=AsJson(grammar=grammar)))
