"""Where a chat template is read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_magics.errors import OptionError, TemplateError
from llm_magics.models.template_source import TemplateSource, template_source
from tests.engine.tiny_gguf import STRING, U32, tiny_model


@pytest.mark.model
def test_a_real_models_template_comes_with_its_tokens(qwen: Path) -> None:
    found = template_source(str(qwen))
    assert (found.name, found.bos_token, found.eos_token) == ("qwen2.5-coder-0.5b", "<|endoftext|>", "<|im_end|>")
    assert "<tool_call>" in found.source
    assert found.control_tokens is not None
    assert {"<|im_start|>", "<|im_end|>", "<tool_call>"} <= found.control_tokens


def test_a_file_is_a_template_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "my.jinja").write_text("{{ messages }}")
    assert template_source(str(tmp_path / "my.jinja")) == TemplateSource("my.jinja", "{{ messages }}")


def test_a_model_without_tokens_or_template(tmp_path: Path) -> None:
    file = tiny_model()
    file.metadata["tokenizer.ggml.bos_token_id"] = (U32, 0xFFFFFFFF)
    found = template_source(str(file.write(tmp_path / "tiny.gguf")))
    assert (found.bos_token, found.eos_token, found.control_tokens) == ("", "</s>", {"<s>", "</s>"})
    file.metadata["tokenizer.chat_template"] = (STRING, "  ")
    with pytest.raises(TemplateError, match="has no chat template"):
        template_source(str(file.write(tmp_path / "tiny.gguf")))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="cannot be read"):
        template_source(str(tmp_path / "my.jinja"))
