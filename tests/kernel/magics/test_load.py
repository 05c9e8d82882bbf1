"""Loading the extension and real models: cheap to import, one card, named errors, interrupts that leave the model right."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.notebook import Cell, Notebook, notebook

HEAVY = (
    "llama_cpp", "numpy", "pydantic", "llguidance", "jinja2", "huggingface_hub", "markdown_it", "ipywidgets", "psutil", "httpx"
)  # fmt: skip


def test_loading_the_extension_imports_nothing_heavy() -> None:
    code = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "llm_magics")
print([name for name in {HEAVY!r} if name in sys.modules and name not in before])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def book(smollm: Path) -> Iterator[Notebook]:
    with notebook() as opened:
        opened.must("%load_model smollm2-135m --ctx 2048 --seed 1")
        yield opened


def plain(cell: Cell) -> str:
    return "\n".join(bundle.get("text/plain", "") for bundle in cell.bundles)


@pytest.mark.kernel
@pytest.mark.model
def test_a_load_ends_in_one_compact_card(smollm: Path) -> None:
    with notebook() as opened:
        for cell in ("a", None):  # a front end that knows updates, and one that does not
            ran = opened.must("%load_model smollm2-135m --ctx 1024 --as tiny", cell)
            (bundle,) = ran.bundles
            text = bundle["text/plain"]
            assert text.startswith("tiny is loaded")
            for part in ("Q4_1", "1,024 tokens", "all on the CPU", "MB", "tool calls: "):
                assert part in text
            assert len(text.splitlines()) < 12
        assert plain(opened.must("%models")).count("* tiny") == 1
        opened.must("%unload_model tiny")
        assert opened.run("%%chat\nhi").reply["ename"] == "NoModelError"


@pytest.mark.kernel
@pytest.mark.model
def test_a_dry_run_shows_the_estimate_and_loads_nothing(smollm: Path) -> None:
    with notebook() as opened:
        text = plain(opened.must("%load_model smollm2-135m --ctx 1024 --dry-run"))
        assert "KV cache" in text
        assert "Nothing was loaded" in text
        assert "none: %load_model" in plain(opened.must("%llm status"))


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("smolm2-135m", "ModelNotFoundError", "smollm2-135m"),
        ("{tmp}/nothing.gguf", "ModelNotFoundError", "nothing.gguf"),
        ("{tmp}/damaged.gguf", "ModelFileError", "damaged.gguf"),
        ("smollm2-135m --ctx many", "OptionError", "--ctx"),
    ],
)
def test_what_cannot_be_loaded_is_a_named_error(tmp_path: Path, line: str, name: str, said: str) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF\x03\0\0\0 and nothing more")
    with notebook() as opened:
        ran = opened.run(f"%load_model {line.format(tmp=tmp_path)}")
        assert ran.reply["ename"] == name, ran.reply
        assert said in ran.reply["evalue"]
        assert opened.alive


@pytest.mark.kernel
@pytest.mark.model
def test_a_real_conversation_streams_and_reuses_its_prefix(book: Notebook) -> None:
    first = book.must("%%chat r --temp 0 --max-tokens 16 --thread talk\nWhat is the capital of France?")
    assert len(first.of("update_display_data")) >= 2
    second = book.must("%%chat r --temp 0 --max-tokens 8 --thread talk\nAnd of Italy?").transcript.usage
    used = first.transcript.usage
    assert second.cached_tokens >= used.prompt_tokens + used.completion_tokens - 1
    assert second.prompt_tokens == second.cached_tokens + second.evaluated_tokens
    assert second.losses == ()


@pytest.mark.kernel
@pytest.mark.model
def test_the_same_seed_gives_the_same_answer(book: Notebook) -> None:
    line = "%%chat r --temp 1 --seed {} --max-tokens 12 --no-history\nTell me a story."
    one, two, other = (book.must(line.format(seed)).transcript.text for seed in (5, 5, 6))
    assert one == two != other


@pytest.mark.kernel
@pytest.mark.model
def test_the_preview_is_the_prompt_that_is_sent(book: Notebook) -> None:
    preview = plain(book.must("%%chat --preview --no-history\nHello, how are you?"))
    ran = book.must("%%chat r --max-tokens 1 --no-history --record\nHello, how are you?")
    recording = ran.transcript.steps[0].recording
    assert "<|im_start|>user\n" in preview
    assert "Hello, how are you?" in preview
    ids = [int(i) for line in preview.splitlines() if line.startswith("---") for i in line.split("tokens:")[1].split()]
    assert (recording["prompt_kept"], recording["prompt_token_ids"]) == (0, ids)


@pytest.mark.kernel
@pytest.mark.model
def test_a_prompt_that_does_not_fit_is_refused_with_the_counts(book: Notebook) -> None:
    book.must("long = 'many words ' * 3000")
    ran = book.run("%%chat --no-history\n{{long}}")
    assert ran.reply["ename"] == "ContextFullError"
    assert "2,048" in ran.reply["evalue"] or "2048" in ran.reply["evalue"]


@pytest.mark.kernel
@pytest.mark.model
def test_interrupts_in_prefill_and_decode_leave_the_model_right(book: Notebook) -> None:
    """Fourteen real interrupts at random moments; the greedy answer to a fixed question stays what it was."""
    fixed = "%%chat r --temp 0 --max-tokens 8 --no-history\nWrite the numbers 1, 2, 3, 4, 5, 6, 7, 8 again."  # no near ties
    expected = book.must(fixed).transcript.text
    book.must("long = ' '.join(f'item {n},' for n in range(300))")
    moments = random.Random(3)
    for number in range(14):
        begun = threading.Event()

        def strike(kind: str, content: dict, begun: threading.Event = begun, delay: float = moments.uniform(0.0, 2.5)) -> None:
            if not begun.is_set():
                begun.set()
                threading.Timer(delay, book.interrupt).start()

        ran = book.run(f"%%chat --thread i{number} --temp 0\nItems {number}: {{{{long}}}} Repeat them all.", on_message=strike)
        assert ran.reply["ename"] == "KeyboardInterrupt"
        assert ran.transcript.state == "interrupted"
        session = f"get_ipython()._llm_magics_runtime.threads['i{number}'].session"
        history = ast.literal_eval(book.value(f"[(m.role, m.text, len(m.token_ids)) for m in {session}.history]"))
        if ran.transcript.text:
            assert [role for role, _, _ in history] == ["user", "assistant"]
            assert history[1][1] == ran.transcript.text
        else:
            assert history == []
        assert book.must(fixed).transcript.text == expected
