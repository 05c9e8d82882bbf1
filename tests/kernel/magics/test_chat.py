"""``%%chat`` in a real kernel: what it sends, what it shows while it runs, and what stays in the saved notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llm_magics.transcript import MIME_TYPE, Transcript
from tests.kernel.notebook import Cell, Notebook, notebook

pytestmark = pytest.mark.kernel

ECHO = """
import itertools
from llm_magics import ScriptedModel, tool, Message, ToolCall
def answer(request):
    users = [m.text for m in request.messages if m.role == "user"]
    return f"{len(users)}: {users[-1]}"
echo = ScriptedModel(itertools.repeat(answer), name="echo")
%load_model echo
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with notebook(ECHO) as opened:
        yield opened


@pytest.fixture
def book(shared: Notebook) -> Notebook:
    """The module's kernel with empty conversations."""
    shared.must("held = get_ipython()._llm_magics_runtime\nheld.threads.clear()\nheld.current_thread = 'main'", None)
    return shared


def ask(book: Notebook, text: str, line: str = "", cell: str | None = "") -> Cell:
    return book.run(f"%%chat {line}\n{text}", cell)


# --- what is asked ----------------------------------------------------------------------------------------------------------


def test_a_bare_chat_cell_answers_after_one_load(book: Notebook) -> None:
    assert ask(book, "hello").transcript.text == "1: hello"


def test_the_conversation_goes_on_from_cell_to_cell(book: Notebook) -> None:
    assert ask(book, "one").transcript.text == "1: one"
    assert ask(book, "two").transcript.text == "2: two"


def test_running_a_cell_again_replaces_its_turn_and_says_which_are_stale(book: Notebook) -> None:
    ask(book, "one", cell="a")
    ask(book, "two", cell="b")
    ask(book, "three", cell="c")
    again = ask(book, "other", cell="a")
    assert again.transcript.text == "1: other"
    assert "2 later turns" in again.bundles[0]["text/plain"]
    assert ask(book, "four", cell="d").transcript.text == "2: four"


def test_running_the_last_cell_again_leaves_nothing_stale(book: Notebook) -> None:
    ask(book, "one", cell="a")
    ask(book, "two", cell="b")
    again = ask(book, "other", cell="b")
    assert again.transcript.text == "2: other"
    assert "later turn" not in again.bundles[0]["text/plain"]


def test_without_cell_ids_every_run_is_a_turn_of_its_own(book: Notebook) -> None:
    ask(book, "one", cell=None)
    assert ask(book, "one", cell=None).transcript.text == "2: one"


def test_the_reply_lands_in_the_named_variable(book: Notebook) -> None:
    ask(book, "hello", "reply --seed 3")
    assert book.value("(reply.text, reply.finish_reason, len(reply.messages))") == "('1: hello', 'stop', 2)"


def test_braces_are_literal_but_for_expressions(book: Notebook) -> None:
    book.must("n = [1, 2]")
    text = 'A {dict: {"a": {}}} of {{n[0] + 41}} and {{ {"k": n}["k"] }} and {{}} {{not python!}}'
    expected = 'A {dict: {"a": {}}} of 42 and [1, 2] and {{}} {{not python!}}'
    assert ask(book, text).transcript.prompt == expected


def test_options_reach_the_model(book: Notebook) -> None:
    ask(book, "hi", "--temp 0.5 --top-p=0.9 --top-k 7 --min-p 0.1 --seed 11 --max-tokens 50 --stop X --stop 'Y Z' --think off")
    book.must("r = echo.requests[-1]", None)
    assert book.value("(r.sampling.temperature, r.sampling.top_p, r.sampling.top_k, r.sampling.min_p, r.sampling.seed)") == (
        "(0.5, 0.9, 7, 0.1, 11)"
    )
    assert book.value("(r.max_tokens, r.stop, r.thinking)") == "(50, ('X', 'Y Z'), False)"


def test_a_system_prompt_stays_with_its_thread(book: Notebook) -> None:
    ask(book, "hi", "-s 'Be brief.'")
    ask(book, "more")
    assert book.value("[m.role for m in echo.requests[-1].messages]") == "['system', 'user', 'assistant', 'user']"
    ask(book, "hi", "--thread other")
    assert book.value("[m.role for m in echo.requests[-1].messages]") == "['user']"


def test_a_system_prompt_may_come_from_a_file(book: Notebook, tmp_path) -> None:
    (tmp_path / "system.txt").write_text("Speak like a pirate.")
    ask(book, "hi", f"-s @{tmp_path / 'system.txt'}")
    assert book.value("echo.requests[-1].messages[0].text") == "'Speak like a pirate.'"
    assert "cannot be read" in ask(book, "hi", f"-s @{tmp_path / 'none.txt'}").reply["evalue"]


def test_no_history_asks_outside_of_the_conversation(book: Notebook) -> None:
    ask(book, "one")
    assert ask(book, "aside", "--no-history").transcript.text == "1: aside"
    assert ask(book, "two").transcript.text == "2: two"


def test_threads_are_conversations_of_their_own(book: Notebook) -> None:
    ask(book, "one")
    assert ask(book, "un", "--thread french").transcript.text == "1: un"
    assert ask(book, "two").transcript.text == "2: two"  # --thread is for its own cell
    assert ask(book, "deux", "--thread french").transcript.text == "2: deux"
    book.must("%thread use french")
    assert ask(book, "trois").transcript.text == "3: trois"
    assert ask(book, "three", "--thread main").transcript.text == "3: three"
    assert ask(book, "quatre").transcript.text == "4: quatre"


def test_a_cell_that_runs_again_stays_in_its_thread(book: Notebook) -> None:
    first = book.must("%%chat\none", "first")
    ask(book, "aside", "--thread readings")
    again = book.must("%%chat\none", "first")
    assert first.transcript.text == again.transcript.text == "1: one"
    assert book.value("len(get_ipython()._llm_magics_runtime.threads['readings'].session.turns)") == "1"


def test_a_schema_gives_a_validated_value(book: Notebook) -> None:
    book.must("import pydantic\nclass Point(pydantic.BaseModel):\n    x: int\n    y: int")
    book.must("points = ScriptedModel(itertools.repeat('{\"x\": 1, \"y\": 2}'))")
    ask(book, "where?", "r -m points --schema Point")
    assert book.value("r.value") == "Point(x=1, y=2)"
    ask(book, "where?", """r -m points --schema '{"type": "object", "required": ["x"]}'""")
    assert book.value("r.value") == "{'x': 1, 'y': 2}"


def test_a_variable_that_holds_a_model_can_be_asked(book: Notebook) -> None:
    book.must("other = ScriptedModel(['I am another'], name='other')")
    shown = ask(book, "who?", "-m other").transcript
    assert (shown.text, shown.model) == ("I am another", "other")


# --- what is shown ----------------------------------------------------------------------------------------------------------


def test_the_answer_streams_into_one_display_and_ends_in_a_static_bundle(book: Notebook) -> None:
    book.must("slow = ScriptedModel('# Title\\n\\n' + 'word ' * 100, tokens_per_second=200)")
    ran = ask(book, "write", "-m slow")
    assert [kind for kind, _ in ran.messages if kind == "display_data"] == ["display_data"]
    updates = [content["data"]["text/html"] for content in ran.of("update_display_data")]
    assert len(updates) > 3
    lengths = [len(html) for html in updates[:-1]]
    assert lengths == sorted(lengths)
    (bundle,) = ran.bundles
    assert set(bundle) == {"text/html", "text/markdown", "text/plain", MIME_TYPE}
    assert '<h1 dir="auto">Title</h1>' in bundle["text/html"]
    assert bundle["text/markdown"].startswith("# Title")
    assert "word word" in bundle["text/plain"]
    assert not ran.of("stream")
    assert set(ran.stray) <= {"comm_msg"}


def test_the_last_line_is_quiet_and_says_what_it_cost(book: Notebook) -> None:
    (bundle,) = ask(book, "hello").bundles
    assert "tokens/s" in bundle["text/plain"].splitlines()[-1]
    assert "context" in bundle["text/plain"].splitlines()[-1]


def test_where_updates_are_not_understood_there_is_one_display(book: Notebook) -> None:
    ran = ask(book, "hello", cell=None)
    assert [kind for kind, _ in ran.messages] == ["display_data"]
    assert ran.transcript.text.endswith("hello")


def test_the_saved_record_is_complete(book: Notebook) -> None:
    ran = ask(book, "hello", "--seed 5 -s 'Be kind.'", cell="rec")
    saved = json.loads(json.dumps(ran.bundles[0][MIME_TYPE]))
    assert saved["settings"]["cell"] == "rec"
    assert saved["settings"]["system"] == "Be kind."
    assert saved["settings"]["options"]["seed"] == 5
    (step,) = saved["steps"]
    assert step["record"]["sampling"]["seed"] == 5
    assert set(step["record"]["request"]) == {"earlier", "messages", "system", "tools", "settings"}
    assert [m.role for m in Transcript.from_json(saved).messages()] == ["user", "assistant"]


def test_quiet_shows_nothing(book: Notebook) -> None:
    ran = ask(book, "hello", "r --quiet")
    assert ran.messages == []
    assert book.value("r.text") == "'1: hello'"


@pytest.mark.parametrize(("mode", "tag"), [("fold", "<details class=\"lm-reasoning\">"), ("full", " open>"), ("hide", None)])
def test_reasoning_is_folded_shown_or_hidden(book: Notebook, mode: str, tag: str | None) -> None:
    book.must("thinker = ScriptedModel([Message('assistant', 'Four.', reasoning='Two and two.')])")
    (bundle,) = ask(book, "2 + 2?", f"-m thinker --show-reasoning {mode}").bundles
    assert (tag is None) == ("Two and two." not in bundle["text/html"])
    assert (tag is None) == ("Two and two." not in bundle["text/plain"])
    if tag:
        assert tag in bundle["text/html"]


def test_preview_shows_the_prompt_and_sends_nothing(book: Notebook) -> None:
    ask(book, "one", cell="a")
    sent = book.value("len(echo.requests)")
    ran = ask(book, "what {{1 + 1}}?", "--preview", cell="b")
    assert book.value("len(echo.requests)") == sent
    text = ran.bundles[0]["text/plain"]
    assert "user: what 2?" in text
    assert "tokens would be sent" in text
    assert "%" in text.splitlines()[0]
    ask(book, "what?", "--preview -s 'Be a pirate.' --thread main")
    again = ask(book, "other", "--preview", cell="a")
    assert "pirate" not in again.bundles[0]["text/plain"]
    assert "user: one" not in again.bundles[0]["text/plain"]
    assert ask(book, "two", cell="b").transcript.text == "2: two"


def test_a_preview_and_a_cell_with_a_mistake_leave_no_thread_and_no_other_model(book: Notebook) -> None:
    ask(book, "one")
    book.must("other = ScriptedModel(['no'], name='other')")
    state = "[(name, one.session.model.name, len(one.session.turns)) for name, one in held.threads.items()]"
    before = book.value(state)
    assert "user: one" in ask(book, "what?", "--preview -m other").bundles[0]["text/plain"]
    assert "user: one" not in ask(book, "what?", "--preview -m other --thread z").bundles[0]["text/plain"]
    assert ask(book, "what?", "-m other --thread z --schema nowhere").reply["ename"] == "OptionError"
    assert book.value(state) == before


def test_a_tool_call_is_a_row_with_its_result(book: Notebook) -> None:
    book.must("@tool\ndef double(n: int) -> int:\n    'Double a number.\\n\\nArgs:\\n    n: the number'\n    return 2 * n")
    book.must("caller = ScriptedModel([ToolCall('double', '{\"n\": 21}'), 'It is 42.'])")
    ran = ask(book, "double 21", "r -m caller -t double")
    assert [(t.name, t.state, t.result) for t in ran.transcript.tools] == [("double", "done", "42")]
    assert "double(n=21)" in ran.bundles[0]["text/html"]
    assert book.value("r.text") == "'It is 42.'"


# --- what is wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "body", "said"),
    [
        ("", "{{undefined_name}}", "undefined_name"),
        ("", "{{1 / 0}}", "ZeroDivisionError"),
        ("", "   ", "has no question"),
        ("--tmep 1", "hi", "Did you mean --temp"),
        ("--temp hot", "hi", "expected a number"),
        ("-m nobody", "hi", "nobody"),
        ("-t nothing_like_it", "hi", "nothing_like_it"),
        ("--schema Missing", "hi", "Missing"),
        ("-c sideways", "hi", "sideways"),
        ("not-a-name", "hi", "not a valid variable name"),
    ],
)
def test_a_mistake_in_the_cell_is_an_error_before_anything_is_sent(book: Notebook, line: str, body: str, said: str) -> None:
    sent = book.value("len(echo.requests)")
    ran = ask(book, body, line)
    assert ran.reply["status"] == "error"
    assert said in ran.reply["evalue"]
    assert len(ran.of("error")) == 1
    assert len("".join(ran.of("error")[0]["traceback"]).splitlines()) <= 3
    assert book.value("len(echo.requests)") == sent


def test_a_model_that_fails_fails_the_cell_and_keeps_what_came(book: Notebook) -> None:
    book.must("from llm_magics.errors import EngineError\nbroken = ScriptedModel([EngineError('It died.', 'Load it again.')])")
    ran = ask(book, "hi", "-m broken")
    assert (ran.reply["status"], ran.reply["ename"]) == ("error", "EngineError")
    assert ran.transcript.state == "error"
    assert ask(book, "and now?").transcript.state == "stop"


def test_no_model_is_a_named_error_that_says_what_to_type() -> None:
    with notebook() as empty:
        ran = empty.run("%%chat\nhi")
        assert ran.reply["ename"] == "NoModelError"
        assert "%load_model" in ran.reply["evalue"]


def test_chat_help_lists_the_options(book: Notebook) -> None:
    ran = book.must("%%chat?")
    text = ran.reply["payload"][0]["data"]["text/plain"]
    assert "--show-reasoning" in text
    assert "{{expression}}" in text
    assert r"\{{ gives two braces" in " ".join(text.split())
