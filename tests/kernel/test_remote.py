"""A model on a server, driven from a notebook: the same magics, tools in the user's kernel, rules, and nothing of the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_magics.transcript import Transcript
from tests.kernel.notebook import Cell, Notebook, notebook
from tests.models.remote.llama_server import binary, serving
from tests.models.remote.standin import HOLD, Reply, StandIn, call, calls, chunk, says, sse

KEY = "sk-class-0123456789abcdef"
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn([says("Hello.")], listing=[{"id": "org/served", "max_model_len": 4096}, {"id": "other"}]) as running:
        yield running


@pytest.fixture(scope="module")
def book(server: StandIn) -> Iterator[Notebook]:
    with notebook() as opened:
        opened.must(f"import os; os.environ['CLASS_KEY'] = {KEY!r}", None)
        opened.must(f"%load_model {server.url} --model org/served --api-key-env CLASS_KEY --seed 5")
        yield opened


def plain(cell: Cell) -> str:
    return "\n".join(bundle.get("text/plain", "") for bundle in cell.bundles)


def test_a_load_shows_the_server_and_a_dry_run_loads_nothing(book: Notebook, server: StandIn) -> None:
    line = f"%load_model {server.url} --model org/served --api-key-env CLASS_KEY --as mine"
    text = plain(book.must(f"{line} --dry-run"))
    for part in ("would use", "Nothing was loaded", "org/served", server.url, "from $CLASS_KEY", "4,096 tokens"):
        assert part in text
    assert book.run("%unload_model mine").reply["ename"] == "NoModelError"
    assert plain(book.must(line)).startswith("mine is loaded")
    assert f"the server {server.url}" in plain(book.must("%models"))
    assert f"mine on the server {server.url}" in plain(book.must("%llm status"))
    assert "does not list 'org/servd'. Did you mean org/served?" in plain(book.must(line.replace("served", "servd")))
    book.must("%unload_model mine")


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("http://127.0.0.1:1/v1 --model x", "ServerError", "No server can be reached"),
        ("http://me:secret@host/v1", "OptionError", "user name or a password"),
        ("{url} --api-key-env NO_SUCH_KEY", "OptionError", "holds no key"),
        ("{url} --model org/served --kv q8_0", "OptionError", "--kv is for a model on this machine"),
        ("smollm2-135m --model x", "OptionError", "--model is for a model on a server"),
        ("{url}", "OptionError", "2 models: org/served, other"),
    ],
)
def test_a_load_that_cannot_be_says_why(book: Notebook, server: StandIn, line: str, error: str, said: str) -> None:
    ran = book.run(f"%load_model {line.format(url=server.url)}")
    assert (ran.reply["ename"], said in ran.reply["evalue"]) == (error, True), ran.reply
    assert "secret" not in json.dumps(ran.messages)


def test_tools_run_in_this_kernel_and_the_notebook_never_holds_the_key(book: Notebook, server: StandIn) -> None:
    book.must("seen = []\nfrom llm_magics import tool\n@tool(approve='auto')\ndef note(word: str) -> str:\n"
              "    'Note a word.'\n    seen.append(word)\n    return f'noted {word}'")  # fmt: skip
    server.script[:] = [
        Reply([calls(call("note", '{"word": "fjord"}', id="a"))]),
        Reply([says("Noted.", f"Your key is {KEY}.")]),
    ]
    server._next = 0
    ran = book.must("%%chat reply\nNote the word fjord.")
    assert book.value("seen") == "['fjord']"
    trace = ran.transcript
    assert (trace.model, trace.tools[0].result, trace.state) == ("served", "noted fjord", "stop")
    assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    assert server.asked[-1].body["seed"] == 5
    assert KEY not in json.dumps(ran.messages)


def test_a_preview_shows_what_would_be_sent_and_sends_nothing(book: Notebook, server: StandIn) -> None:
    n_before = len(server.seen)
    text = plain(book.must("%%chat --preview\nNote the word fjord."))
    assert "would be sent; the model's server counts their tokens" in text
    for part in ("--- tools\n", '"name": "note"', "--- user\nNote the word fjord."):
        assert part in text
    assert "0 tokens" not in text
    assert len(server.seen) == n_before


def test_an_interrupt_hangs_up_and_keeps_what_was_said(book: Notebook, server: StandIn) -> None:
    server.script[:] = [Reply([sse(chunk({"content": "So far"}), done=False), HOLD])]
    server.hung_up.clear()

    struck: list[bool] = []

    def strike(kind: str, content: object) -> None:
        if not struck and "So far" in json.dumps(content):
            struck.append(True)
            book.interrupt()

    ran = book.run("%%chat\nTalk.", on_message=strike)
    assert ran.reply["ename"] == "KeyboardInterrupt"
    assert server.hung_up.wait(30)
    assert (ran.transcript.state, ran.transcript.text) == ("interrupted", "So far")
    server.script[:] = [Reply([says("Here.")])]
    assert book.must("%%chat\nAre you there?").transcript.text == "Here."


def test_a_server_that_breaks_off_fails_the_cell_and_not_the_conversation(book: Notebook, server: StandIn) -> None:
    server.script[:] = [Reply([sse(chunk({"content": "Half an"}), done=False)])]
    ran = book.run("%%chat\nTalk.")
    assert ran.reply["ename"] == "ServerError"
    assert (ran.transcript.state, ran.transcript.text) == ("error", "Half an")
    server.script[:] = [Reply([says("Here.")])]
    assert book.must("%%chat\nAre you there?").transcript.text == "Here."


def test_a_local_and_a_remote_model_are_compared(book: Notebook, server: StandIn) -> None:
    server.script[:] = [Reply([says("From afar.")])]
    book.must("from llm_magics import ScriptedModel\nnear = ScriptedModel(['From here.'] * 4, name='near')")
    book.must("%%compare replies -m near -m served --tools none\nWhere from?")
    assert book.value("[reply.text for reply in replies]") == "['From here.', 'From afar.']"


def test_a_rule_holds_for_servers(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profile_default").mkdir()
    rule = "c.LLMMagics.allowed_servers = ['*.school.example', 'localhost']\n"
    (tmp_path / "profile_default" / "ipython_config.py").write_text(rule, encoding="utf-8")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with notebook() as lesson:
        n_before = len(server.seen)
        ran = lesson.run(f"%load_model {server.url} --model org/served")
        assert (ran.reply["ename"], len(server.seen)) == ("OptionError", n_before)
        assert "do not allow the server 127.0.0.1" in ran.reply["evalue"]
        lesson.must(f"from llm_magics import connect_model\nheld = connect_model({server.url!r}, model='org/served')")
        for line in ("%%chat -m held\nhi", "%load_model held"):
            assert "do not allow the server" in lesson.run(line).reply["evalue"]
        local = server.url.replace("127.0.0.1", "localhost")
        assert "served is loaded" in plain(lesson.must(f"%load_model {local} --model org/served"))
        assert "*.school.example, localhost" in plain(lesson.must("%llm status"))


# --- one notebook, several load lines ---------------------------------------------------------------------------------------

TOOLS = """from llm_magics import tool
ran = []
@tool(approve="auto")
def weather(city: str) -> dict:
    '''Tell the weather of a city.'''
    ran.append(city)
    return {"city": city, "sky": "rain"}"""
CELLS = (
    "%%chat first --temp 0 --max-tokens 60 --tool-choice weather\nHow is the weather in Oslo? Use the tool.",
    "%%chat second --temp 0 --max-tokens 40 --tools none\nWhich city was that? One word.",
)


def answered(load: str) -> tuple[list[Transcript], list[Any]]:
    """Run the notebook with one load line: its two turns, and the calls with their results."""
    with notebook(TOOLS) as opened:
        opened.must(load)
        turns = [opened.must(cell).transcript for cell in CELLS]
        assert [turn.state for turn in turns] == ["stop", "stop"]
        made = [(tool.name, json.loads(tool.arguments), tool.result, tool.state) for turn in turns for tool in turn.tools]
        return turns, [*made, opened.value("ran")]


@pytest.fixture(scope="module")
def here(qwen: Path) -> tuple[list[Transcript], list[Any]]:
    """The notebook with its model in the kernel."""
    turns, made = answered(f"%load_model {qwen.as_posix()} --ctx 2048")
    assert made[0][:2] == ("weather", {"city": "Oslo"})
    assert made[-1] == "['Oslo']"
    assert "Oslo" in turns[1].text
    return turns, made


@pytest.mark.model
def test_one_notebook_has_the_same_calls_and_results_on_a_foreign_server(here: tuple[list[Transcript], list[Any]]) -> None:
    """The server says what the model in the kernel said, in its own form."""
    answers = [message for turn in here[0] for message in turn.messages() if message.role == "assistant"]
    said = [message for message in answers if message.tool_calls or message.text]  # without what was withheld
    script = [
        calls(*(call(one.name, one.arguments, at) for at, one in enumerate(message.tool_calls)))
        if message.tool_calls else says(message.text)
        for message in said
    ]  # fmt: skip
    with StandIn(script) as foreign:
        turns, made = answered(f"%load_model {foreign.url}")
    assert made == here[1]
    assert [turn.text for turn in turns] == [turn.text for turn in here[0]]


@pytest.mark.model
@pytest.mark.skipif(not binary().exists(), reason="llama-server is not built: make llama-server")
def test_one_notebook_has_the_same_calls_and_results_on_a_llama_server(
    qwen: Path, here: tuple[list[Transcript], list[Any]]
) -> None:
    with serving(qwen, "--ctx-size", "4096", "--jinja", "--parallel", "2") as url:
        turns, made = answered(f"%load_model {url}")
    assert made == here[1]
    assert "Oslo" in turns[1].text
