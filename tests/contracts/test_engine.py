"""What every engine does, in this process and across a pipe: one suite over the Protocol, with a real model."""

from __future__ import annotations

import json
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_magics.engine.values import (
    Engine,
    EngineConfig,
    Finished,
    GenerateRequest,
    Prefill,
    SamplerSettings,
    TokenLogprob,
    Tokens,
)
from llm_magics.errors import ContextFullError, EngineError, OptionError, SchemaError
from tests.engine.guides import AfterMarker, Breaks, Freed, FromStart, Recorder, StopsAfter

from .engines import GREEDY, OPENERS, greedy, prompt_of, run

pytestmark = pytest.mark.model

JSON_OBJECT = """start: "{" "\\"city\\": " CITY ", \\"days\\": " /[1-9]/ "}"
CITY: "\\"Paris\\"" | "\\"Oslo\\""
"""



# --- what it says of itself -------------------------------------------------------------------------------------------------


def test_info_tells_what_was_loaded(engine: Engine) -> None:
    info = engine.info
    assert (info.architecture, info.n_ctx, info.n_slots, info.recurrent) == ("llama", 1024, 1, False)
    assert info.n_params == 134_515_008
    assert info.eos_text in dict(info.control_tokens)
    assert info.eos in info.eog
    assert "<|im_start|>" in info.chat_template
    assert ("general.architecture", "llama") in info.metadata
    kinds = {kind for _, kind, _ in info.buffers}
    assert {"model", "kv", "compute", "output"} <= kinds
    assert all(size > 0 for _, _, size in info.buffers)


def test_values_pickle(engine: Engine) -> None:
    events, _ = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=3, logprobs=2, guide=Recorder()))
    for value in (engine.info, *events):
        assert pickle.loads(pickle.dumps(value)) == value


TEXTS = ["", "  two  spaces\n\ttab", "naïve café — “quotes”", "漢字かな交じり文", "🙂👩‍👩‍👧 🇫🇷", "a<|im_end|>b", "\x00\x7f"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_tokens_spell_the_text(engine: Engine, text: str) -> None:
    for special in (False, True):
        tokens = engine.tokenize(text, special=special)
        assert b"".join(engine.pieces(tokens)).decode() == text


def test_control_strings_are_control_tokens_only_where_asked(engine: Engine) -> None:
    control = dict(engine.info.control_tokens)["<|im_end|>"]
    assert engine.tokenize("<|im_end|>", special=True) == (control,)
    assert control not in engine.tokenize("<|im_end|>", special=False)


def test_a_token_that_does_not_exist_has_no_piece(engine: Engine) -> None:
    for token in (-1, engine.info.n_vocab):
        with pytest.raises(EngineError):
            engine.pieces([token])


# --- one generation ---------------------------------------------------------------------------------------------------------


def test_events_come_in_order_and_add_up(engine: Engine) -> None:
    events, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=12))
    kinds = "".join({Prefill: "p", Tokens: "t", Finished: "f"}[type(event)] for event in events)
    assert kinds == "p" * kinds.count("p") + "t" * kinds.count("t") + "f"
    tokens = [event for event in events if isinstance(event, Tokens)]
    assert sum((event.ids for event in tokens), ()) == end.ids
    assert "".join(event.text for event in tokens) == end.text
    assert b"".join(engine.pieces(end.ids)).decode("utf-8", "replace") == end.text
    last = next(event for event in reversed(events) if isinstance(event, Prefill))
    assert last.done == last.total == end.n_evaluated
    assert end.n_prompt == end.n_cached + end.n_evaluated == len(prompt_of(engine))
    assert len(end.ids) == 12
    assert end.reason == "length"
    assert end.n_past == end.n_prompt + 12


def test_greedy_is_the_same_every_time(engine: Engine) -> None:
    assert greedy(engine).ids == greedy(engine).ids


def test_a_seed_gives_the_same_draw_and_another_seed_another(engine: Engine) -> None:
    def draw(seed: int | None) -> Finished:
        return run(engine, GenerateRequest(prompt_of(engine), SamplerSettings(temperature=1.5, seed=seed), max_tokens=16))[1]

    first = draw(7)
    assert first.seed == 7
    assert draw(7).ids == first.ids
    assert len({draw(seed).ids for seed in range(4)}) > 1
    chosen = draw(None)
    assert draw(chosen.seed).ids == chosen.ids


@pytest.mark.parametrize("n", [0, 1, 5])
def test_max_tokens_is_exact(engine: Engine, n: int) -> None:
    end = greedy(engine, n=n)
    assert (len(end.ids), end.reason) == (n, "length")


def test_an_end_token_stops_and_is_not_part_of_the_answer(engine: Engine) -> None:
    bias = ((engine.info.eos, 1000.0),)
    _, end = run(engine, GenerateRequest(prompt_of(engine), SamplerSettings(temperature=0, logit_bias=bias)))
    assert (end.reason, end.ids, end.text) == ("stop", (), "")


def test_stop_strings_end_the_text_and_are_not_part_of_it(engine: Engine) -> None:
    whole = greedy(engine, n=24).text
    for start in range(3, 9):
        stop = whole[start : start + 5]
        _, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=24, stop=("never seen", stop)))
        assert (end.reason, end.text) == ("stop", whole[: whole.index(stop)])


def test_an_unfinished_stop_string_is_given_out_at_the_end(engine: Engine) -> None:
    whole = greedy(engine, n=6).text
    events, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=6, stop=(whole[-3:] + "\0",)))
    assert end.text == whole == "".join(event.text for event in events if isinstance(event, Tokens))


def test_a_banned_token_never_comes_and_a_wanted_one_does(engine: Engine) -> None:
    first = greedy(engine).ids[0]
    ban = SamplerSettings(temperature=0, logit_bias=((first, float("-inf")),))
    assert first not in run(engine, GenerateRequest(prompt_of(engine), ban, max_tokens=12))[1].ids
    want = SamplerSettings(temperature=1.0, seed=1, logit_bias=((99, 1000.0),))
    assert set(run(engine, GenerateRequest(prompt_of(engine), want, max_tokens=4))[1].ids) == {99}


def test_penalties_change_what_is_repeated(engine: Engine) -> None:
    text = "Repeat the word yes forever: yes yes yes yes yes yes"
    plain = greedy(engine, text, 32)
    punished = SamplerSettings(temperature=0, repeat_penalty=1.8, frequency_penalty=1.0, presence_penalty=1.0)
    _, end = run(engine, GenerateRequest(prompt_of(engine, text), punished, max_tokens=32))
    assert len(set(end.ids)) / len(end.ids) > len(set(plain.ids)) / len(plain.ids)


def test_narrow_sampling_is_greedy(engine: Engine) -> None:
    expected = greedy(engine).ids
    for settings in (SamplerSettings(top_k=1), SamplerSettings(top_p=0.0), SamplerSettings(min_p=1.0, top_k=0, top_p=1.0)):
        assert run(engine, GenerateRequest(prompt_of(engine), settings, max_tokens=12))[1].ids == expected


def test_logprobs_are_those_of_the_model(engine: Engine) -> None:
    events, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=5, logprobs=3))
    found = [item for event in events if isinstance(event, Tokens) for item in event.logprobs]
    assert [item.token for item in found] == list(end.ids)
    for item in found:
        assert isinstance(item, TokenLogprob)
        assert item.top[0] == (item.token, item.logprob)
        values = [value for _, value in item.top]
        assert values == sorted(values, reverse=True)
        assert len(values) == 3
        assert max(values) <= 0


# --- the cache --------------------------------------------------------------------------------------------------------------


def test_exactly_what_is_not_a_common_prefix_is_evaluated(engine: Engine) -> None:
    words = engine.tokenize(" the quick brown fox jumps over a lazy dog near some river bank" * 3, special=False)
    random.seed(5)
    held: tuple[int, ...] = ()
    greedy(engine, "Something else first.")
    run(engine, GenerateRequest(words[:1] * 3, GREEDY, max_tokens=0))
    held = words[:1] * 3
    for _ in range(12):
        cut = random.randint(1, len(words))
        prompt = words[:cut] + tuple(random.choices(words, k=random.randint(0, 20)))
        _, end = run(engine, GenerateRequest(prompt, GREEDY, max_tokens=3))
        common = next((i for i, (a, b) in enumerate(zip(prompt, held, strict=False)) if a != b), min(len(prompt), len(held)))
        assert end.n_cached == min(common, len(prompt) - 1)
        assert end.n_evaluated == len(prompt) - end.n_cached
        held = prompt + end.ids[:-1]  # the last token was sampled, not evaluated


def test_a_reused_prefix_does_not_change_the_answer(engine: Engine) -> None:
    cold = [greedy(engine, text, 10).ids for text in ("Name a colour.", "Name a country.", "Name a colour and a country.")]
    warm = [greedy(engine, text, 10).ids for text in ("Name a colour.", "Name a country.", "Name a colour and a country.")]
    assert warm == cold


# --- guides and grammars ----------------------------------------------------------------------------------------------------


def test_a_guide_is_fed_all_text_and_its_events_come_through(engine: Engine) -> None:
    events, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=8, guide=Recorder()))
    said = [item for event in events if isinstance(event, Tokens) for item in event.events]
    assert said[0] == "start"
    assert "".join(map(str, said[1:])) == end.text
    assert end.events == ("finish length",)


def test_a_guide_can_stop(engine: Engine) -> None:
    _, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=50, guide=StopsAfter(n=3)))
    assert end.reason == "stop"
    assert len(end.ids) < 10


@pytest.mark.parametrize("settings", [GREEDY, SamplerSettings(temperature=1.2, seed=3), SamplerSettings(repeat_penalty=1.2)])
def test_an_armed_grammar_holds_to_its_end(engine: Engine, settings: SamplerSettings) -> None:
    _, end = run(engine, GenerateRequest(prompt_of(engine), settings, max_tokens=60, guide=FromStart(grammar=JSON_OBJECT)))
    value = json.loads(end.text)
    assert set(value) == {"city", "days"}
    assert value["city"] in ("Paris", "Oslo")
    assert end.reason == "stop"
    assert end.forced > 0


def test_a_grammar_armed_midway_first_takes_what_is_pending(engine: Engine) -> None:
    text = greedy(engine, n=20).text
    marker = text[2:5]
    rest = text[5:8]  # must be allowed by the grammar, because it may come in the marker's own token
    grammar = f'start: /[^Q]{{0,9}}/ "DONE"  // after {json.dumps(rest)}'
    guide = AfterMarker(marker=marker, grammar=grammar)
    _, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=40, guide=guide))
    assert end.text.startswith(text[:5])
    assert end.text.endswith("DONE")
    assert end.reason == "stop"


def test_a_disarmed_grammar_lets_go(engine: Engine) -> None:
    guide = Freed(grammar='start: "abc" /(abc)*/', until="abcabc")
    _, end = run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=30, guide=guide))
    assert end.text.startswith("abcabc")
    assert set(end.text) - set("abc")


@pytest.mark.parametrize("grammar", ["start: (", "", "start: missing", 'start: %json {"$ref": "#/no"}', "start: /(/"])
def test_a_bad_grammar_is_a_named_error_and_harms_nobody(engine: Engine, grammar: str) -> None:
    expected = greedy(engine).ids
    with pytest.raises(SchemaError):
        run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=8, guide=FromStart(grammar=grammar)))
    assert greedy(engine).ids == expected


def test_a_grammar_that_only_allows_banned_tokens_is_a_named_error(engine: Engine) -> None:
    digits = tuple((engine.tokenize(str(digit), special=False)[0], float("-inf")) for digit in range(10))
    banned = SamplerSettings(temperature=0, logit_bias=digits)
    request = GenerateRequest(prompt_of(engine), banned, max_tokens=9, guide=FromStart(grammar="start: /[0-9]/"))
    with pytest.raises(EngineError, match="ban"):
        run(engine, request)


@pytest.mark.parametrize("where", ["start", "feed", "finish"])
def test_a_guide_that_raises_is_a_named_error_and_harms_nobody(engine: Engine, where: str) -> None:
    expected = greedy(engine).ids
    with pytest.raises(EngineError, match=f"broken in {where}"):
        run(engine, GenerateRequest(prompt_of(engine), GREEDY, max_tokens=8, guide=Breaks(where=where)))
    assert greedy(engine).ids == expected


# --- refusals ---------------------------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused_with_the_counts(engine: Engine) -> None:
    with pytest.raises(ContextFullError) as caught:
        engine.submit(GenerateRequest((5,) * 1025))
    assert (caught.value.n_prompt, caught.value.n_ctx) == (1025, 1024)
    assert "1025" in str(caught.value)


def test_a_generation_ends_where_the_context_ends(engine: Engine) -> None:
    _, end = run(engine, GenerateRequest((5,) * 1020, SamplerSettings(temperature=0, logit_bias=((99, 1000.0),))))
    assert (end.reason, len(end.ids)) == ("length", 5)  # four are evaluated, the fifth is sampled from the last of them


BAD_REQUESTS = {
    "empty prompt": GenerateRequest(()),
    "negative token": GenerateRequest((1, -1)),
    "token past the vocabulary": GenerateRequest((10**6,)),
    "negative max_tokens": GenerateRequest((1,), max_tokens=-1),
    "negative temperature": GenerateRequest((1,), SamplerSettings(temperature=-1)),
    "temperature nan": GenerateRequest((1,), SamplerSettings(temperature=float("nan"))),
    "top_p over 1": GenerateRequest((1,), SamplerSettings(top_p=1.1)),
    "min_p under 0": GenerateRequest((1,), SamplerSettings(min_p=-0.1)),
    "top_k under 0": GenerateRequest((1,), SamplerSettings(top_k=-1)),
    "repeat penalty 0": GenerateRequest((1,), SamplerSettings(repeat_penalty=0)),
    "presence penalty inf": GenerateRequest((1,), SamplerSettings(presence_penalty=float("inf"))),
    "bias of no token": GenerateRequest((1,), SamplerSettings(logit_bias=((10**6, 1.0),))),
    "bias nan": GenerateRequest((1,), SamplerSettings(logit_bias=((1, float("nan")),))),
}


@pytest.mark.parametrize("request_", BAD_REQUESTS.values(), ids=list(BAD_REQUESTS))
def test_a_request_that_cannot_be_met_is_refused_at_once(engine: Engine, request_: GenerateRequest) -> None:
    with pytest.raises((EngineError, OptionError)):
        engine.submit(request_)


# --- cancelling -------------------------------------------------------------------------------------------------------------


def test_closing_early_frees_the_engine_for_the_next_request(engine: Engine) -> None:
    expected = greedy(engine).ids
    for n_events in (0, 1, 2, 5):
        generation = engine.submit(GenerateRequest(prompt_of(engine, "Write a very long story."), GREEDY))
        for _ in range(n_events):
            next(generation)
        generation.close()
        assert list(generation) == []
        assert greedy(engine).ids == expected


def test_a_dropped_generation_does_not_run_on(engine: Engine) -> None:
    engine.submit(GenerateRequest(prompt_of(engine, "Write a very long story."), GREEDY))
    assert len(greedy(engine, n=4).ids) == 4  # one slot: this could not begin before that one has ended


def test_an_abandoned_consumer_does_not_stop_others(engine: Engine) -> None:
    slow = engine.submit(GenerateRequest(prompt_of(engine, "Write a long story."), GREEDY, max_tokens=20))
    ends: list[Finished] = []
    thread = threading.Thread(target=lambda: ends.append(greedy(engine, n=4)))
    thread.start()
    thread.join(120)
    assert len(ends[0].ids) == 4
    assert len([event for event in slow if isinstance(event, Tokens)]) > 0


def test_many_threads_get_their_own_answers(engine: Engine) -> None:
    texts = ["Name a fruit.", "Name a planet.", "Name a metal."]
    expected = {text: greedy(engine, text, 6).ids for text in texts}
    found: dict[str, tuple[int, ...]] = {}

    def ask(text: str) -> None:
        found[text] = greedy(engine, text, 6).ids

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == expected


# --- closing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", OPENERS.values(), ids=list(OPENERS))
def test_a_closed_engine_says_so(opener: Callable[[EngineConfig], Engine], smollm: Path) -> None:
    engine = opener(EngineConfig(str(smollm), n_ctx=512))
    running = engine.submit(GenerateRequest(prompt_of(engine), GREEDY))
    next(running)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(GenerateRequest((1,)))
    with pytest.raises(EngineError, match="closed"):
        engine.tokenize("text", special=False)
    end = list(running)[-1]
    assert isinstance(end, Finished)
    assert end.reason == "interrupted"
