"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_magics import cli
from llm_magics.store.catalog import catalog
from tests.engine.tiny_gguf import STRING, tiny_model


def test_pull_list_prints_every_name_and_what_is_unverified(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [entry.name for entry in catalog()]
    assert sum("unverified" in line for line in lines) == sum(not entry.verified for entry in catalog())


@pytest.mark.model
def test_pull_tells_where_the_file_is_and_that_it_was_checked(smollm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "smollm2"]) == 0
    printed = capsys.readouterr().out
    assert str(smollm) in printed
    assert "sha256 verified" in printed


def test_an_unknown_name_is_one_sentence_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "qwen2.5-codr"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("llm-magics: No model is called")
    assert "qwen2.5-coder" in error
    assert "Traceback" not in error


def test_doctor_prints_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("next")


def test_lab_without_jupyterlab_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(["lab", str(tmp_path)]) == 1
    assert "pip install 'llm_magics[lab]'" in capsys.readouterr().err


def test_formats_show_describes_a_template_file_and_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tiny_model()
    template = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    file.metadata["tokenizer.chat_template"] = (STRING, template)
    (tmp_path / "my.jinja").write_text(template)
    for source in (tmp_path / "my.jinja", file.write(tmp_path / "tiny.gguf")):
        assert cli.main(["formats", "show", str(source)]) == 0
        printed = capsys.readouterr().out
        assert "assistant" in printed
        assert "Warnings" in printed


def test_formats_show_of_nothing_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["formats", "show", "no/such.jinja"]) == 1
    assert "There is no file no/such.jinja" in capsys.readouterr().err


def test_lab_on_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "no-such.ipynb"]) == 1
    assert "no-such.ipynb" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m llm_magics.cli pull --list | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)


def test_help_needs_nothing_heavy() -> None:
    code = """if True:
        import sys, llm_magics.cli
        try: llm_magics.cli.main(["--help"])
        except SystemExit: pass
        print([m for m in ("llama_cpp", "numpy", "huggingface_hub", "IPython") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
