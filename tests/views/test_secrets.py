"""What looks like a secret is neither shown nor saved; what does not is left alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.segments import Ask, Step, TextSegment, ToolSegment
from llm_magics.transcript import MIME_TYPE, Transcript
from llm_magics.views.notebook import bundle_of
from llm_magics.views.secrets import MASK, Masking, masked, masked_text

KEY = "sk-proj-abcdefghij0123456789"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"use {KEY} now", f"use {MASK} now"),
        ("ghp_" + "a" * 36, MASK),
        ("hf_" + "B" * 34, MASK),
        ("AKIA" + "Z" * 16, MASK),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM", MASK),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\ndef\n-----END RSA PRIVATE KEY-----", MASK),
        ("DB_PASSWORD=hunter2 HOST=a", f"DB_PASSWORD={MASK} HOST=a"),
        ('{"api_key": "abc123", "n": 1}', f'{{"api_key": "{MASK}", "n": 1}}'),
        ('"{\\"token\\": \\"abc123\\"}"', f'"{{\\"token\\": \\"{MASK}\\"}}"'),
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {MASK}"),
        ("postgres://me:hunter2@db/x", f"postgres://me:{MASK}@db/x"),
        ("password: swordfish", f"password: {MASK}"),
    ],
)
def test_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "the password is required",
        "max_tokens=100",
        '{"token_count": 512, "password": null}',
        "sk-learn and hf_hub are libraries",
        "https://example.com/a:b@c",
        "task-force-one-two-three-four",
        "def login(password: str) -> None:",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert masked_text(text) == text


def secretive() -> Transcript:
    call = ToolSegment(
        0,
        "connect",
        "c1",
        f'{{"key": "{KEY}"}}',
        "done",
        ask=Ask(f"connect({KEY!r})", "d1"),
        printed=f"using {KEY}\n",
        outputs=({"text/plain": KEY, "text/html": f"<td>{KEY}</td>", "image/png": "aGZfaGZfaGZf"},),
        result=f"PASSWORD=swordfish {KEY}",
        warnings=(KEY,),
    )
    record = {"prompt": f"tool: {KEY}", "prompt_token_ids": [1, 2, 3], "token_ids": [4]}
    answer = TextSegment(f"The key is {KEY}.", 1)
    return Transcript("t1", state="stop", segments=(call, answer), steps=(Step("tool_calls", token_ids=(4,), record=record),))


def test_no_form_of_a_transcript_that_is_saved_holds_the_secret() -> None:
    saved = json.dumps(bundle_of(secretive()), ensure_ascii=False)
    assert KEY not in saved
    assert "swordfish" not in saved
    assert "[1, 2, 3]" not in saved
    assert saved.count(MASK) > 8
    assert "aGZfaGZfaGZf" in saved


def test_a_transcript_without_secrets_is_the_same_object() -> None:
    plain = Transcript(segments=(TextSegment("hello"), ToolSegment(0, "f", arguments='{"n": 1}', result="2")))
    assert masked(plain) is plain
    assert Masking()(plain) is plain


def test_a_record_without_secrets_is_kept_whole() -> None:
    record = {"prompt": "hi", "prompt_token_ids": [1, 2], "engine": {"tensor_split": ()}, "tools": [{"name": "f"}]}
    plain = Transcript(steps=(Step("stop", token_ids=(1, 2), record=record),))
    assert masked(plain) is plain
    assert bundle_of(plain)[MIME_TYPE]["steps"][0]["record"]["prompt_token_ids"] == [1, 2]


def test_masking_a_growing_transcript_reads_each_segment_once() -> None:
    masking, transcript = Masking(), secretive()
    once, again = masking(transcript), masking(transcript)
    assert [a is b for a, b in zip(once.segments, again.segments, strict=True)] == [True, True]
    assert KEY not in json.dumps(once.to_json(record=False))


BLOCK = ["-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----END PRIVATE KEY-----"]
PIECES = [KEY, "AKIA" + "Z" * 16, "word ", "\n", "hf_", *BLOCK]


@given(st.lists(st.sampled_from([*PIECES, *"ab1-"]), max_size=12).map("".join), st.integers(1, 9))
def test_a_growing_text_is_masked_at_every_moment_as_the_whole_would_be(text: str, stride: int) -> None:
    masking = Masking()
    for end in (*range(0, len(text), stride), len(text), 0, len(text)):  # at last it begins anew
        shown = Transcript(segments=(TextSegment(text[:end]),))
        assert masking(shown) == masked(shown)
