"""What README and ``%%chat?`` show is typed into a real kernel, and its effect checked. A new block or command without a check
fails: the lists are read off the README."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from llm_magics.cli import main as cli
from llm_magics.kernel.options.specs import CHAT, LOAD_MODEL
from llm_magics.kernel.rules import LLMMagics
from tests.models.remote.standin import StandIn, says

from .notebook import Cell, Notebook, notebook

pytestmark = [pytest.mark.kernel, pytest.mark.model]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
BLOCKS = [(language, text.rstrip("\n")) for language, text in FENCE.findall(README)]
_PROSE = FENCE.sub("", README)
# code in prose that somebody would type, e.g. "%%chat --temp 0", "--max-tokens 90", "make bench"
_TYPED = re.compile(r"%|-|\\?\{\{|llm-magics|make\s|c\.|reply\.|CMAKE_ARGS|pip\s|@tool|session\.")
COMMANDS = list(dict.fromkeys(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", _PROSE) if _TYPED.match(code)))

# Shell lines that cannot run in a test, and why; their form is checked.
NOT_RUN = {
    "make lab HEADLESS=1": "sets up an environment and runs a lab",
    "make bench": "takes an hour",
    "pip install .": "installs",
    "pip install llama-cpp-python": "installs, and wants the network and a GPU",
    "CMAKE_ARGS=": "compiles for a GPU",
    "%pip": "installs",
    "llm-magics pull NAME": "downloads",
    "make lab": "sets up an environment and opens a browser",
}
SETUP = """
import pandas, pydantic
df = pandas.DataFrame({"city": ["Oslo", "Rome"], "age": [3, 4]})
class Recipe(pydantic.BaseModel):
    title: str
    minutes: int
"""


@pytest.fixture(scope="module")
def book(qwen: Path, smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel whose answers are short, with what the README's cells stand on."""
    home = tmp_path_factory.mktemp("ipython")
    (home / "profile_default").mkdir()
    (home / "profile_default" / "ipython_config.py").write_text("c.LLMMagics.default_max_tokens = 12\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(home))
        with notebook(SETUP) as opened:
            for cell in block("%load_ext llm_magics").split("\n"):
                opened.must(cell, None)
            opened.must(block("from llm_magics import tool"), None)
            opened.must(block("%%tool plot_column"), None)
            yield opened


def block(begins: str) -> str:
    (found,) = [text for _, text in BLOCKS if text.startswith(begins)]
    return found


def shown(ran: Cell) -> str:
    return ran.printed + "\n".join(str(bundle.get("text/plain", "")) for bundle in ran.bundles)


# --- blocks -----------------------------------------------------------------------------------------------------------------


def _first_chat(book: Notebook) -> None:
    trace = book.must(block("%%chat\n")).transcript
    assert trace.prompt == "In one sentence: what is a Jupyter notebook?"
    assert trace.text


def _tools_are_there(book: Notebook) -> None:
    said = shown(book.must("%tools"))
    assert re.search(r"weather +\(city: str", said)
    assert re.search(r"plot_column +\(column: str.* ask", said)


def _configured(begins: str, n_set: int) -> Callable[[Notebook], None]:
    def check(_: Notebook) -> None:
        config = Config()
        exec(block(begins), {"c": config})  # as IPython reads it
        held = LLMMagics(config=config)
        assert len(config.LLMMagics) == n_set
        for name, value in config.LLMMagics.items():
            assert getattr(held, name) == value
        for name in re.findall(r"\b(?:max|default)_\w+", block(begins)):
            assert name in LLMMagics.class_trait_names(), name

    return check


def _made_by_make(_: Notebook) -> None:
    targets = re.findall(r"^make (\w+)", block("make lab"), re.M)
    assert targets == ["lab", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def _pip_lines(begins: str) -> Callable[[Notebook], None]:
    def check(_: Notebook) -> None:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for line in block(begins).split("\n"):
            command = line.partition("#")[0].strip()
            package = r"\.|'\.\[(\w+)\]'|llama-cpp-python==([\d.]+) --extra-index-url https://\S+"
            found = re.fullmatch(rf"pip install ({package})", command)
            assert found, line
            assert not found[2] or re.search(rf"^{found[2]} = \[", project, re.M)
            assert not found[3] or f"llama-cpp-python>={found[3].rpartition('.')[0]}" in project or found[3] in project

    return check


def _run_elsewhere(_: Notebook) -> None:
    """tests/test_readme.py executes every block of Python from top to bottom."""
    assert sum(language == "python" for language, _ in BLOCKS) == 3


def _on_a_server(book: Notebook) -> None:
    with StandIn([says("Yes.")], listing=[{"id": "qwen3-8b"}]) as server:
        book.must("import os; os.environ['LAB_KEY'] = 'key-of-the-lab'", None)
        line = block("%load_model http")
        assert "qwen3-8b is loaded" in shown(book.must(line.replace("http://localhost:8080/v1", server.url)))
        assert book.must("%%chat --no-history\nSay yes.").transcript.text == "Yes."
        assert server.asked[0].headers["authorization"] == "Bearer key-of-the-lab"
        code = next(code for code in re.findall(r"`(connect_model[^`]+)`", README))
        book.must(f"from llm_magics import connect_model\nheld = {code.replace('http://localhost:8080/v1', server.url)}", None)
        assert book.must("%%chat -m held --no-history\nSay yes.").transcript.text == "Yes."
        book.must("%unload_model qwen3-8b\n%load_model qwen2.5-coder-0.5b")


def _drawn(_: Notebook) -> None:
    for name in re.findall(r"^ +(\w+)/ ", block("        notebook cell"), re.M):
        assert (ROOT / "llm_magics" / name).is_dir(), name


BLOCK_CHECKS: dict[str, Callable[[Notebook], None]] = {
    "make lab": _made_by_make,
    "pip install .": _pip_lines("pip install ."),
    "pip install llama-cpp-python": _pip_lines("pip install llama-cpp-python"),
    "%load_ext llm_magics": _first_chat,
    "%%chat\n": _first_chat,
    "from llm_magics import tool": _tools_are_there,
    "%%tool plot_column": _tools_are_there,
    "%load_model http": _on_a_server,
    "c.LLMMagics.approve": _configured("c.LLMMagics.approve", 5),
    "c.LLMMagics.default_model": _configured("c.LLMMagics.default_model", 4),
    "from llm_magics import Session": _run_elsewhere,
    'model = load_model("smollm2-135m", ctx=4096)': _run_elsewhere,
    "        notebook cell": _drawn,
}


@pytest.mark.parametrize("text", [text for _, text in BLOCKS], ids=[text.split("\n")[0][:30] for _, text in BLOCKS])
def test_every_block_of_the_readme_does_what_it_says(book: Notebook, text: str) -> None:
    (check,) = [check for begins, check in BLOCK_CHECKS.items() if (text + "\n").startswith(begins)]
    check(book)


# --- commands in prose ------------------------------------------------------------------------------------------------------


def _asked(line: str, **expected: Any) -> Callable[[Notebook], None]:
    """The line above a question: it is answered, and the turn is as the line says."""

    def check(book: Notebook) -> None:
        trace = book.must(f"{line}\nSay yes.").transcript
        assert trace.prompt == "Say yes."
        assert trace.text
        for name, value in expected.items():
            assert getattr(trace, name) == value

    return check


def _the_same_again(options: str) -> Callable[[Notebook], None]:
    def check(book: Notebook) -> None:
        cell = f"again {options}"
        first, *more = [book.must(f"%%chat {options}\nName a river and a town.", cell).transcript.text for _ in range(3)]
        assert first
        assert more == [first, first]

    return check


def _one_line(book: Notebook) -> None:
    assert book.must("%%chat What is a notebook?").transcript.prompt == "What is a notebook?"


def _help(book: Notebook) -> None:
    (page,) = book.must("%%chat?", None).reply["payload"]
    said = page["data"]["text/plain"]
    assert "One line is enough: %%chat --temp 0 What is a notebook?" in said
    assert book.must("%%chat --temp 0 What is a notebook?").transcript.prompt == "What is a notebook?"
    for option in CHAT.options:
        assert option.names[0] in said


def _reply(book: Notebook) -> None:
    book.must("%%chat reply\nSay yes.")
    assert book.value("(bool(reply.text), reply.usage.completion_tokens > 0, reply.tool_calls)") == "(True, True, ())"


def _schema(book: Notebook) -> None:
    book.must("%%chat reply --temp 0 --schema Recipe --max-tokens 90\nA recipe for tea.")
    assert book.value("(type(reply.value).__name__, type(reply.value.minutes).__name__)") == "('Recipe', 'int')"


def _preview(book: Notebook) -> None:
    assert "<|im_start|>" in str(book.must("%%chat --preview\nSay yes.").bundles)


def _failed_before(book: Notebook) -> None:
    book.run("1 / 0")
    assert "ZeroDivisionError" in book.must("%%chat -c prev\nExplain this error").transcript.prompt


def _filled(code: str, part: str) -> Callable[[Notebook], None]:
    return lambda book: _contains(book.must(f"%%chat\nSay {code} yes.").transcript.prompt, part)


def _contains(text: str, part: str) -> None:
    assert part in text


def _used(book: Notebook) -> None:
    _asked("%%chat --thread ideas", thread="ideas")(book)
    book.must("%thread use ideas")
    _asked("%%chat", thread="ideas")(book)
    book.must("%thread use main")
    _asked("%%chat", thread="main")(book)


def _says(line: str, *parts: str) -> Callable[[Notebook], None]:
    def check(book: Notebook) -> None:
        said = shown(book.must(line))
        for part in parts:
            assert part in said

    return check


def _after_a_turn(line: str, part: str) -> Callable[[Notebook], None]:
    def check(book: Notebook) -> None:
        _asked("%%chat")(book)
        _says(line, part)(book)

    return check


def _deterministic(book: Notebook) -> None:
    book.must("%load_model smollm2-135m --deterministic --ctx 512 --as sure")
    first, second = (book.must("%%chat -m sure --temp 0 --no-history\nName a river.").transcript for _ in range(2))
    assert first.text == second.text
    assert second.usage.cached_tokens == 0
    book.must("%unload_model sure")


def _read(spec: Any, line: str, **expected: Any) -> Callable[[Notebook], None]:
    def check(_: Notebook) -> None:
        options = spec.parse(line)
        for name, value in expected.items():
            assert getattr(options, name) == value

    return check


def _stripped(tmp: Path, by: Callable[[Path], None]) -> None:
    import nbformat

    cell = nbformat.v4.new_code_cell("%%chat\nhi")
    path = tmp / "lab.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    by(path)
    assert nbformat.read(path, 4).cells[0].source == "%%chat\nhi"


def _compared(book: Notebook) -> None:
    book.must("%load_model smollm2-135m --ctx 512 --as other")
    book.must("%load_model qwen2.5-coder-0.5b --ctx 512 --as one")
    said = shown(book.must("%%compare -m one -m other --max-tokens 4\nSay yes."))
    assert "one" in said
    assert "other" in said
    book.must("%unload_model other\n%unload_model one\n%load_model qwen2.5-coder-0.5b")


def _repeating(book: Notebook) -> None:
    book.must("@tool(repeats=True)\ndef clock() -> str:\n    'Tell the time.'\n    return 'noon'", None)
    for _ in range(2):
        assert "noon" in shown(book.must("%tools test clock"))


def _iterated(book: Notebook) -> None:
    book.must("from llm_magics import Session, ScriptedModel\nsession = Session(ScriptedModel(['Yes.']))", None)
    names = book.value('[type(event).__name__ for event in session.turn("...")]')
    assert re.fullmatch(r"\['TurnStart', .*'TextDelta', .*'TurnEnd'\]", names)


COMMAND_CHECKS: dict[str, Callable[[Notebook], None]] = {
    "%load_model": _says("%llm status", "qwen2.5-coder-0.5b"),
    "%load_ext llm_magics": _says("%llm status", "qwen2.5-coder-0.5b"),
    "%%chat": _asked("%%chat"),
    "%%chat What is a notebook?": _one_line,
    "%%chat?": _help,
    "%%chat reply": _reply,
    "reply.text": _reply,
    "reply.usage": _reply,
    "reply.tool_calls": _reply,
    "%%chat --temp 0": _the_same_again("--temp 0"),
    "--temp 0": _the_same_again("--temp 0"),
    "--seed 1": _the_same_again("--seed 1"),
    "--seed N": _the_same_again("--seed 7"),
    "{{df.head()}}": _filled("{{df.head()}}", "Oslo"),
    "{{...}}": _filled("{{1 + 1}}", "Say 2 yes."),
    "\\{{": _filled("\\{{ user }}", "{{ user }}"),
    "%%chat -c prev": _failed_before,
    "-c": _failed_before,
    "%%chat --schema Recipe": _schema,
    "reply.value": _schema,
    "%%chat --preview": _preview,
    "%%chat --record": _asked("%%chat --record", recorded=True),
    "--record": _asked("%%chat --record", recorded=True),
    "%%chat --thread ideas": _used,
    "%thread use ideas": _used,
    "%thread": _after_a_turn("%thread", "Say yes."),
    "%load_model NAME --deterministic": _deterministic,
    "--max-tokens 90": _read(CHAT, "--max-tokens 90", max_tokens=90),
    "--max-tokens": _read(CHAT, "--max-tokens 90", max_tokens=90),
    "--max-calls": _read(CHAT, "--max-calls 2", max_calls=2),
    "--approve ask": _says("%tools", "ask"),
    "%tools": _tools_are_there,
    "%tools test": _says('%tools test weather {"city": "Oslo"}', "21.5"),
    "%tools why": _after_a_turn("%tools why", "weather"),
    "%models": _says("%models", "qwen2.5-coder-0.5b", "smollm2-135m"),
    "%models all": _says("%models all", "gpt-oss-120b"),
    "--help": _says("%load_model --help", "--dry-run"),
    "%llm status": _says("%llm status", "default max tokens"),
    "%llm doctor": _says("%llm doctor", "extension", "next"),
    "--model": _read(LOAD_MODEL, "http://h/v1 --model m", model="m"),
    "--api-key-env": _read(LOAD_MODEL, "http://h/v1 --api-key-env K", api_key_env="K"),
    "--preview": _preview,
    "--threads N": _read(LOAD_MODEL, "m --threads 2", threads=2),
    "--dry-run": _says("%load_model smollm2-135m --dry-run", "Nothing was loaded."),
    "-ngl": _read(LOAD_MODEL, "m -ngl 3", gpu_layers=3),
    "-ts": _read(LOAD_MODEL, "m -ts 1,2", tensor_split=(1.0, 2.0)),
    "-ctk": _read(LOAD_MODEL, "m -ctk q8_0", kv="q8_0"),
    "-fa": _read(LOAD_MODEL, "m -fa on", flash_attn="on"),
    "--isolated": _says("%load_model smollm2-135m --isolated --dry-run", "its own process"),
    "--in-kernel": _says("%load_model smollm2-135m --in-kernel --dry-run", "this kernel"),
    "--in-kernel --gpu-layers N": _read(LOAD_MODEL, "m --in-kernel --gpu-layers 9", in_kernel=True, gpu_layers=9),
    "--ctx-size": _read(LOAD_MODEL, "m --ctx-size 512", ctx=512),
    "%%chat --samples 5": lambda book: _contains(shown(book.must("%%chat --samples 5 --max-tokens 4\nSay yes.")), "5 · seed"),
    "%%compare": _compared,
    "%%compare -m one -m other": _compared,
    'session.turn("...")': _iterated,
    "c.LLMMagics.record = True": lambda _: _contains(" ".join(LLMMagics.class_trait_names()), "record"),
    "c.LLMMagics": lambda _: _contains(" ".join(LLMMagics.class_trait_names()), "default_model"),
    "@tool(repeats=True)": _repeating,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_does_what_it_says(
    book: Notebook, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(command.startswith(one) for one in NOT_RUN) and command not in COMMAND_CHECKS:
        assert "NAME" in command or re.match(r"make (lab|bench)|%pip|CMAKE_ARGS=", command)
    elif command == "%llm strip":
        _stripped(tmp_path, lambda path: book.must(f"%llm strip {path}") and None)
    elif command == "llm-magics strip FILE":
        _stripped(tmp_path, lambda path: _contains(str(cli(["strip", str(path)])), "0"))
    elif command == "llm-magics doctor":
        cli(["doctor"])
        assert "llama.cpp" in capsys.readouterr().out
    elif command == "llm-magics formats show MODEL":
        cli(["formats", "show", "smollm2-135m"])
        assert capsys.readouterr().out.strip()
    else:
        COMMAND_CHECKS[command](book)


def test_no_check_is_left_of_a_command_that_is_gone() -> None:
    assert set(COMMAND_CHECKS) <= set(COMMANDS)
