"""What a cell shows that ends in a value of ours, and what %models tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_magics.engine.fit.memory import free_memory
from llm_magics.kernel.options.specs import SPECS
from llm_magics.store.catalog import catalog, find
from llm_magics.store.stores import on_disk, stored_files

from .notebook import Cell, Notebook, notebook

SETUP = '''
import pandas
from llm_magics import ScriptedModel
model = ScriptedModel([lambda request: f"You said **{request.messages[-1].text}**"] * 40)
'''


@pytest.fixture(scope="module")
def book() -> Iterator[Notebook]:
    with notebook(SETUP) as opened:
        opened.must("%load_model model", None)
        yield opened


def last(ran: Cell) -> dict[str, str]:
    (bundle,) = [content["data"] for content in ran.of("execute_result")]
    return bundle


def test_a_bare_reply_is_its_answer(book: Notebook) -> None:
    book.must("%%chat reply\nhi")
    shown = last(book.must("reply"))
    assert "<strong>hi</strong>" in shown["text/html"]
    assert shown["text/markdown"].startswith("You said **hi**")
    assert shown["text/plain"].startswith("You said **hi**")
    assert set(shown) == {"text/html", "text/markdown", "text/plain"}


def test_several_replies_are_a_line_each(book: Notebook) -> None:
    book.must("%%chat replies --samples 3 --seed 1\nhi")
    assert last(book.must("replies"))["text/plain"].count("<Reply 'You said **hi**', 4 tokens>") == 3


def test_a_reply_is_masked_like_its_cell(book: Notebook) -> None:
    key = "ghp_" + "a1B2c3D4e5" * 4
    book.must(f"%%chat reply\nMy key is {key}.")
    assert key not in str(last(book.must("reply")))


def test_what_failed_in_a_map_over_a_frame_is_told_by_its_errors(book: Notebook) -> None:
    book.must("frame = pandas.DataFrame({'n': [1, 2]}, index=['a', 'b'])")
    ran = book.must("answers = model.map(frame, template='{n}')\nprint(answers.values.tolist(), answers.errors)")
    assert ran.printed.strip() == "['You said **1**', 'You said **2**'] {}"
    script = "ScriptedModel([lambda r: 1 / 0 if r.messages[-1].text == '2' else 'ok'] * 4)"
    ran = book.must(f"failing = {script}.map(frame, template='{{n}}')\nprint(failing.errors)")
    assert re.search(r"\{'b': \w+\(.*division by zero", ran.printed)


def test_a_map_s_result_is_a_table(book: Notebook) -> None:
    shown = last(book.must("model.map(['red', 'blue'], progress=False)"))
    assert shown["text/html"].count("<strong>red</strong>") == shown["text/html"].count("<strong>blue</strong>") == 1
    assert "<table" in shown["text/html"]
    assert shown["text/plain"].startswith("<map of 2 rows>")


def test_models_tells_sizes_what_is_here_and_what_fits(book: Notebook, qwen: Path) -> None:
    loaded, known, *_ = book.must("%models all").bundles
    assert "model" in loaded["text/plain"]
    rows = {line.split()[0]: line for line in known["text/plain"].splitlines()[1:] if line.strip()}
    for entry in catalog():
        assert re.search(r"\d (MB|GB) ", rows[entry.name]), entry.name
    head = known["text/plain"].splitlines()[0]
    here, fits = head.index("on this disk"), head.index("fits in memory now")
    small, large = rows["qwen2.5-coder-0.5b"], rows["gpt-oss-120b"]
    assert small[here : here + 3] == "yes"
    assert small[fits : fits + 3] == "yes"
    assert large[here : here + 3].strip() == ""
    free = free_memory()
    needed = next(entry.expected_size for entry in catalog() if entry.name == "gpt-oss-120b") * 1.2
    on_a_gpu = any(gpu.free >= needed for gpu in free.gpus)
    assert large[fits : fits + 3].strip() == ("yes" if on_a_gpu or free.host >= needed else "no")


def models(book: Notebook, line: str) -> list[str]:
    _, known, *_ = book.must(line).bundles
    return [line.split()[0] for line in known["text/plain"].splitlines()[1:-1]]


def test_models_shows_first_what_is_here_then_a_few_that_fit(book: Notebook, qwen: Path) -> None:
    shown, every = models(book, "%models"), models(book, "%models all")
    assert sorted(every) == sorted(entry.name for entry in catalog())
    here = [name for name in every if on_disk(find(name), stored_files())]
    others = shown[len(here) :]
    assert shown[: len(here)] == every[: len(here)] == here
    assert "qwen2.5-coder-0.5b" in here
    sizes = {entry.name: entry.expected_size for entry in catalog() if entry.name not in here and entry.expected_size}
    smallest = sorted(sizes, key=sizes.__getitem__)[:10]
    assert others == [name for name in smallest if sizes[name] * 1.2 <= free_memory().host][: len(others)]
    assert 0 < len(others) < len(every) - len(here)
    assert f"{len(shown)} of {len(every)} models" in book.must("%models").bundles[1]["text/plain"]


def test_models_shows_those_with_a_word(book: Notebook) -> None:
    assert set(models(book, "%models DEVSTRAL")) == {"devstral-small"}
    assert set(models(book, "%models reasons")) == {entry.name for entry in catalog() if "reasons" in entry.about}
    ran = book.run("%models nosuchmodel")
    assert ran.reply["ename"] == "OptionError"
    assert "%models all" in ran.reply["evalue"]


@pytest.mark.parametrize("name", sorted(set(SPECS) - {"chat", "compare", "tool"}))
def test_each_magic_of_a_line_shows_its_help_when_asked(book: Notebook, name: str) -> None:
    for ask in ("--help", "-h"):
        assert book.must(f"%{name} {ask}").printed == f"{SPECS[name].help()}\n"


@pytest.mark.parametrize("name", ["chat", "compare", "tool"])
def test_each_magic_of_a_cell_shows_its_help_when_asked(book: Notebook, name: str) -> None:
    for cell in (f"%%{name} --help", f"%%{name} --help\nHello?"):
        ran = book.must(cell)
        assert ran.printed == f"{SPECS[name].help()}\n"
        assert not ran.bundles


def test_estimated_sizes_are_near_the_verified_ones() -> None:
    for entry in catalog():
        if entry.size is not None and entry.parameters > 1:
            estimate = type(entry)(entry.name, entry.file, entry.license, (), parameters=entry.parameters).expected_size
            assert 0.8 < estimate / entry.size < 1.2
