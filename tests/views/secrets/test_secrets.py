"""What looks like a secret is neither shown nor saved; what does not is left alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_magics.kernel.page.notebook import bundle_of
from llm_magics.segments import Ask, Step, TextSegment, ToolSegment
from llm_magics.transcript import MIME_TYPE, Transcript
from llm_magics.views.secrets.secrets import MASK, Masking, masked, masked_data, masked_text

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
        ("sk_live_" + "4" * 24, MASK),
        ("curl -H 'X-Api: Bearer abcdefgh1234'", f"curl -H 'X-Api: Bearer {MASK}'"),
        ("postgres://me:p@ss@db/x redis://:hunter2@h", f"postgres://me:{MASK}@db/x redis://:{MASK}@h"),
        ("https://x.y/z?token=abc123&n=1", f"https://x.y/z?token={MASK}&n=1"),
        # literals
        ('password = "hunter2"', f'password = "{MASK}"'),
        ("password='correct horse, (really)'", f"password='{MASK}'"),
        ('password: str = "hunter2"', f'password: str = "{MASK}"'),
        ("def login(token: str = 'abc'):", f"def login(token: str = '{MASK}'):"),
        ('if password == "hunter2":', f'if password == "{MASK}":'),
        ('connect("db", password="hun\\"ter2", n=1)', f'connect("db", password="{MASK}", n=1)'),
        ('secret = b"abcdef" + suffix', f'secret = b"{MASK}" + suffix'),
        ('secret = ("abcdef"\n  "ghijk")', f'secret = ("{MASK}"\n  "{MASK}")'),
        ("key = 1; private_key = \'\'\'a\nb\'\'\'", f"key = 1; private_key = \'\'\'{MASK}\'\'\'"),
        ('password = f"hunter{n}-horse{m:>3}"', f'password = f"{MASK}{{n}}{MASK}{{m:>3}}"'),
        ('os.environ["API_KEY"] = "abc123"', f'os.environ["API_KEY"] = "{MASK}"'),
        ('os.environ.setdefault("API_KEY", "abc123")', f'os.environ.setdefault("API_KEY", "{MASK}")'),
        ("{'token': 'abc', 'n': 1}", f"{{'token': '{MASK}', 'n': 1}}"),
        ('{"password": 12345678}', f'{{"password": "{MASK}"}}'),
        ('password = "$ecret1"', f'password = "{MASK}"'),
        ('{"password": "hunt', f'{{"password": "{MASK}'),
        ('"{\\"token\\": \\"a\\\\\\"b\\", \\"n\\": 1}"', f'"{{\\"token\\": \\"{MASK}\\", \\"n\\": 1}}"'),
        # lines of configuration
        ("export SECRET_KEY=p(ss,w0rd)x", f"export SECRET_KEY={MASK}"),
        ("password=hunter2", f"password={MASK}"),
        ('{"command": "mysql --password=hunter2"}', f'{{"command": "mysql --password={MASK}"}}'),
        ("host=db user=me password=hunter2", f"host=db user=me password={MASK}"),
        ("Server=x;Password=hunter2;User=y", f"Server=x;Password={MASK};User=y"),
        ("aws_secret_access_key=wJalr/K7MD+EXAMPLE", f"aws_secret_access_key={MASK}"),
        ("db:\n  password: hunter2  # old\n", f"db:\n  password: {MASK}  # old\n"),
        ('{"text": "user: me\\npassword: hunter2\\n"}', f'{{"text": "user: me\\npassword: {MASK}\\n"}}'),
        ("X-API-Key: abc123", f"X-API-Key: {MASK}"),
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
        # an expression says where a secret comes from
        "token = next(stream)",
        "token=next(stream)",
        "    token=next(x for x in stream),",
        "TOKEN=next(stream)",
        "token = b64(\"x y\")",
        "f(token=b64('x y'), n=1)",
        "password = getpass()",
        "password = settings.password",
        "login(user, password=pw)",
        "login(\n    user,\n    password=password,\n    token=token\n)",
        "f(token=tok,n=3)",
        'api_key = os.environ["API_KEY"]',
        'f"Bearer {token}"',
        'headers = {"Authorization": "Bearer " + token}',
        '{"headers": {"Authorization": f"Bearer {token}"}}',
        'token = f"{prefix}{n}"',
        'f"postgres://{user}:{password}@{host}/x"',
        "TOKEN=$OTHER PASSWORD=${PW} SECRET=$(cat file)",
        "    token: Token | None = None",
        "    password: SecretStr",
        "    secret: Optional[str] = None",
        "    token: the one to use.",
        "password: required",
        "for token in tokens: print(token)",
        'tokenizer.pad_token = "<pad>"',
        "eos_token=151645",
        '{"token": 151645, "secret": true}',
        'bypass = "the town"',
        'token == ""',
        "if token: use(token)",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert masked_text(text) == text


def test_what_the_environment_holds_under_a_secret_s_name_is_one_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_TEST_TOKEN", "not-a-known-shape")
    monkeypatch.setenv("LLM_MAGICS_TEST_TOKENS", "nor-is-this-one")
    assert masked_text("it said not-a-known-shape, nor-is-this-one") == f"it said {MASK}, nor-is-this-one"
    assert Masking()(Transcript(segments=(TextSegment("not-a-known-shape"),))).segments[0] == TextSegment(MASK)
    monkeypatch.delenv("LLM_MAGICS_TEST_TOKEN")
    assert masked_text("it said not-a-known-shape") == "it said not-a-known-shape"


def test_data_is_masked_by_the_names_of_its_members() -> None:
    data = {"password": "hunter2", "n": [1, {"api_key": "abc"}], "token": 5, "secret": None, "image/png": "token=abcdef"}
    shown = {"password": MASK, "n": [1, {"api_key": MASK}], "token": 5, "secret": None, "image/png": "token=abcdef"}
    assert masked_data(data) == shown
    assert masked_data(shown) is shown


VALUES = ["hunter2", 'a"b', "a\\", "password='x y z'", "token=abc\\n", "secret: abc"]
SECRETIVE = st.dictionaries(
    st.sampled_from(["password", "db_token", "n", "api_key", "text"]),
    st.text() | st.sampled_from(VALUES) | st.integers() | st.none(),
)


@given(SECRETIVE, st.booleans(), st.booleans())
@example({"api_key": "a\\", "n": 1}, False, True)
@example({"api_key": 'a\\"b\\\\', "password": "hunter2"}, False, True)
def test_json_stays_json_with_the_same_members(data: dict[str, object], ascii_only: bool, twice: bool) -> None:
    text = json.dumps(data, ensure_ascii=ascii_only)
    masked = json.loads(masked_text(json.dumps({"inner": text}) if twice else text))
    found = json.loads(masked["inner"]) if twice else masked
    assert found.keys() == data.keys()
    for name in ("password", "db_token", "api_key"):
        value = data.get(name)
        if isinstance(value, str) and value.isalnum() and len(value) > 5:
            assert found[name] == (value if value.lower() in ("string", "object", "required", "optional", "bearer") else MASK)


BITS = ["token", "password", "=", ": ", '"', "'", "\\", "(", ")", ",", "f", "{", "}", "\n", " ", "ab1"]


@given(st.lists(st.sampled_from(BITS)))
def test_masking_what_is_masked_changes_nothing(pieces: list[str]) -> None:
    once = masked_text("".join(pieces))
    assert masked_text(once) == once


@pytest.mark.parametrize(
    "text",
    ["token " * 40_000, "a-" * 100_000, "://a:" * 40_000, 'token="' * 30_000, "password=x(" * 20_000, "token:" + " " * 100_000,
     "token: a|" * 20_000, "\\" * 200_000 + '"token"', "password=\\" * 20_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_masking_takes_reasonable_time_whatever_the_text(text: str) -> None:
    code = "import sys\nfrom llm_magics.views.secrets.secrets import masked_text\nmasked_text(sys.stdin.read())"
    subprocess.run([sys.executable, "-c", code], input=text.encode(), check=True, timeout=60)


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
    record = {"request": {"messages": "5eed", "tools": "7001"}, "stop": [KEY]}
    recording = {"text": "I look.", "prompt": f"tool: {KEY}", "prompt_token_ids": [1, 2, 3], "prompt_hash": "c0de"}
    answer = TextSegment(f"The key is {KEY}.", 1)
    steps = (
        Step("tool_calls", token_ids=(4, 44), record=record),
        Step("stop", token_ids=(5, 55), record={"request": {"messages": "5eed"}}, recording=recording),
    )
    return Transcript("t1", state="stop", segments=(call, answer), steps=steps, recorded=True)


def test_no_form_of_a_transcript_that_is_saved_holds_the_secret() -> None:
    saved = json.dumps(bundle_of(secretive()), ensure_ascii=False)
    assert KEY not in saved
    assert "swordfish" not in saved
    assert "[1, 2, 3]" not in saved  # token ids would spell it out again
    assert "[4, 44]" not in saved
    assert "[5, 55]" not in saved
    assert "5eed" not in saved  # a hash would let it be guessed
    assert "c0de" not in saved
    assert "7001" in saved
    assert saved.count(MASK) > 8
    assert "aGZfaGZfaGZf" in saved


def test_a_transcript_without_secrets_is_the_same_object() -> None:
    plain = Transcript(segments=(TextSegment("hello"), ToolSegment(0, "f", arguments='{"n": 1}', result="2")))
    assert masked(plain) is plain
    assert Masking()(plain) is plain


def test_a_record_without_secrets_is_kept_whole() -> None:
    record = {"engine": {"tensor_split": ()}, "request": {"messages": "5eed"}}
    recording = {"prompt": "hi", "prompt_token_ids": [1, 2], "schemas": {"7001": {"name": "f"}}}
    plain = Transcript(steps=(Step("stop", token_ids=(1, 2), record=record, recording=recording),), recorded=True)
    assert masked(plain) is plain
    assert bundle_of(plain)[MIME_TYPE]["steps"][0]["recording"]["prompt_token_ids"] == [1, 2]


def test_of_a_recorded_step_only_what_spells_the_secret_is_left_out() -> None:
    said = Step("stop", token_ids=(7, 8), recording={"text": "Done.", "prompt": f"tool: {KEY}", "prompt_token_ids": [1, 2, 3]})
    result = ToolSegment(0, "read", "c1", "{}", "done", result=KEY)
    (step,) = masked(Transcript(segments=(result, TextSegment("Done.", 0)), steps=(said,), recorded=True)).steps
    assert step.token_ids == (7, 8)
    assert step.recording == {"text": "Done.", "prompt": f"tool: {MASK}"}


def test_masking_a_growing_transcript_reads_each_segment_once() -> None:
    masking, transcript = Masking(), secretive()
    once, again = masking(transcript), masking(transcript)
    assert [a is b for a, b in zip(once.segments, again.segments, strict=True)] == [True, True]
    assert KEY not in json.dumps(once.to_json(record=False))


BLOCK = ["-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----END PRIVATE KEY-----"]
PIECES = [KEY, "Bearer ", "abcdefgh1", "https://a:b@c ", "AKIA" + "Z" * 16, "word ", "\n", "hf_", *BLOCK]


@given(st.lists(st.sampled_from([*PIECES, *"ab1-"]), max_size=12).map("".join), st.integers(1, 9))
def test_a_growing_text_is_masked_at_every_moment_as_the_whole_would_be(text: str, stride: int) -> None:
    masking = Masking()
    for end in (*range(0, len(text), stride), len(text), 0, len(text)):  # at last it begins anew
        shown = Transcript(segments=(TextSegment(text[:end]),))
        assert masking(shown) == masked(shown)
