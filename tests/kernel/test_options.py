from __future__ import annotations

import dataclasses
import re

import pytest

from llm_magics.errors import OptionError
from llm_magics.kernel.braces import fill
from llm_magics.kernel.options import split
from llm_magics.kernel.specs import CHAT, LOAD_MODEL, SPECS, THREAD, ChatOptions, LoadOptions


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ChatOptions()),
        ("reply", ChatOptions(variable="reply")),
        ("reply -m small --temp 0", ChatOptions(variable="reply", model="small", temperature=0.0)),
        ("--temp=0 reply", ChatOptions(variable="reply", temperature=0.0)),
        ("--stop 'a b' --stop c", ChatOptions(stop=("a b", "c"))),
        ("--stop=\"it's\"", ChatOptions(stop=("it's",))),
        ("-c prev -c tag:data", ChatOptions(context=("prev", "tag:data"))),
        ("--think on --show-reasoning full", ChatOptions(think=True, show_reasoning="full")),
        ("-q --no-history --preview", ChatOptions(quiet=True, no_history=True, preview=True)),
        ("-n 1_000 --seed 0", ChatOptions(max_tokens=1000, seed=0)),
        ("-s ''", ChatOptions(system="")),
        ("-t none --tool-choice required --max-steps 3 --approve ask",
         ChatOptions(tools="none", tool_choice="required", max_steps=3, approve="ask")),
        ("-- --odd-name", ChatOptions(variable="--odd-name")),
    ],
)  # fmt: skip
def test_chat_lines(line: str, expected: ChatOptions) -> None:
    assert CHAT.parse(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m -c 4096 -ngl 99 -ts 3,1 -ctk q8_0 -ctv q8_0 -fa on -t 4 -b 256",
         LoadOptions("m", ctx=4096, gpu_layers=99, tensor_split=(3, 1), kv="q8_0", flash_attn="on", threads=4, batch=256)),
        ("m --ctx auto --gpu-layers auto", LoadOptions("m")),
        ("m -ngl -1", LoadOptions("m", gpu_layers=-1)),
        ("m -np 4", LoadOptions("m", slots=4)),
        ("m --slots auto", LoadOptions("m")),
        ("m -md small -mg 1 --speculation auto", LoadOptions("m", draft="small", main_gpu=1, speculation="auto")),
        ("m --context-shift --deterministic", LoadOptions("m", context_shift=True, deterministic=True)),
        ("m --park-memory 0 --park-disk 512", LoadOptions("m", park_memory=0, park_disk=512)),
        (r"C:\models\a.gguf --as a", LoadOptions(r"C:\models\a.gguf", alias="a")),
        ("'my models/a.gguf'", LoadOptions("my models/a.gguf")),
        ("""m --chat-template-kwargs '{"think": {"on": false}}'""", LoadOptions("m", template_kwargs={"think": {"on": False}})),
        ("owner/repo:file-q4.gguf --ttl 60 --dry-run", LoadOptions("owner/repo:file-q4.gguf", ttl=60.0, dry_run=True)),
    ],
)  # fmt: skip
def test_load_lines_take_llama_cpp_s_own_spellings(line: str, expected: LoadOptions) -> None:
    assert LOAD_MODEL.parse(line) == expected


@pytest.mark.parametrize(
    ("spec", "line", "said"),
    [
        (CHAT, "--temprature 1", "Did you mean --temp"),
        (CHAT, "--sow-reasoning full", "--show-reasoning"),
        (CHAT, "--temp", "needs a value"),
        (CHAT, "--temp hot", "should be a number"),
        (CHAT, "--top-p 1.5", "from 0 to 1"),
        (CHAT, "--max-tokens 0", "at least 1"),
        (CHAT, "--temp 1 --temp 2", "given twice"),
        (CHAT, "--preview=yes", "takes no value"),
        (CHAT, "--approve perhaps", "auto|ask|deny"),
        (CHAT, "one two", "'two'"),
        (CHAT, "--stop 'open", "quotation mark"),
        (LOAD_MODEL, "", "needs NAME"),
        (LOAD_MODEL, "m --kv q4_0", "Did you mean q8_0"),
        (LOAD_MODEL, "m --chat-template-kwargs [1]", "JSON object"),
        (LOAD_MODEL, "m --tensor-split a,b", "numbers"),
        (LOAD_MODEL, "m -ngl all", "whole number"),
    ],
)
def test_a_line_that_cannot_be_understood_says_what_would_be_right(spec, line: str, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        spec.parse(line)


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.magic)
def test_one_description_makes_options_help_and_parser(spec) -> None:
    fields = {f.name for f in dataclasses.fields(spec.make)}
    assert {o.field for o in spec.options} | {w.field for w in spec.words} == fields
    text = spec.help()
    for option in spec.options:
        assert option.usage in text
        assert option.help in text
    names = [name for option in spec.options for name in option.names]
    assert len(names) == len(set(names))


def test_a_line_is_split_like_a_shell_s_but_for_backslashes() -> None:
    assert split(r"""a 'b c' "d 'e" f\g x'y z'w --k="v v" ''""") == ["a", "b c", "d 'e", r"f\g", "xy zw", "--k=v v", ""]
    assert THREAD.parse("").action == "show"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("no braces", "no braces"),
        ("{x} {{x}} {{ x + 1 }}", "{x} 3 4"),
        ("{{{x}}}", "{3}"),
        ('{{ {"a": {"b": x}}["a"]["b"] }}', "3"),
        ("{{}} {{ }} {{x", "{{}} {{ }} {{x"),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
        ("{{no python}} {{x}}", "{{no python}} 3"),
        ("{{'}}'}}", "}}"),
        ("{{[x for x in range(2)]}}", "[0, 1]"),
        ("\\section{{x}}", "\\section3"),
        ("{{s}}", "{{x}}"),
    ],
)
def test_only_double_braces_around_an_expression_are_filled(text: str, filled: str) -> None:
    assert fill(text, {"x": 3, "s": "{{x}}"}) == filled


def test_an_expression_cannot_change_the_namespace_by_assigning() -> None:
    namespace = {"x": 1}
    assert fill("{{(y := x + 1)}}", namespace) == "2"
    assert namespace == {"x": 1}


@pytest.mark.parametrize(
    ("text", "said"), [("{{nope}}", "nope"), ("{{1/0}}", "ZeroDivisionError"), ("{{[][1]}}", "IndexError")]
)
def test_an_expression_that_fails_is_named(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        fill(text, {})
