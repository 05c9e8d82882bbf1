from __future__ import annotations

import copy
import dataclasses
import re
import subprocess
import sys

import pytest

from llm_magics.errors import OptionError
from llm_magics.kernel.options.braces import fill
from llm_magics.kernel.options.line import Filled, split
from llm_magics.kernel.options.specs import CHAT, COMPARE, LOAD_MODEL, SPECS, THREAD, ChatOptions, LoadOptions


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
        ("--max-tokens 1_000 --seed 0", ChatOptions(max_tokens=1000, seed=0)),
        ("-s ''", ChatOptions(system="")),
        ("-t none --tool-choice required --max-steps 3 --max-calls 5 --approve ask",
         ChatOptions(tools="none", tool_choice="required", max_steps=3, max_calls=5, approve="ask")),
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
        ("m --ctx auto --gpu-layers auto", LoadOptions("m", ctx="auto")),
        ("m -ngl -1", LoadOptions("m", gpu_layers=-1)),
        ("m -np 4", LoadOptions("m", slots=4)),
        ("m --slots auto", LoadOptions("m")),
        ("m -md small -mg 1 --speculation auto", LoadOptions("m", draft="small", main_gpu=1, speculation="auto")),
        ("m --context-shift --deterministic", LoadOptions("m", context_shift=True, deterministic=True)),
        ("m --park-memory 0 --park-disk 512", LoadOptions("m", park_memory=0, park_disk=512)),
        (r"C:\models\a.gguf --as a", LoadOptions(r"C:\models\a.gguf", alias="a")),
        ("'my models/a.gguf'", LoadOptions("my models/a.gguf")),
        ("""m --chat-template-kwargs '{"think": {"on": false}}'""",
         LoadOptions("m", chat_template_kwargs={"think": {"on": False}})),
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
        (CHAT, "--temp hot", "expected a number"),
        (CHAT, "--top-p 1.5", "from 0 to 1"),
        (CHAT, "--max-tokens 0", "at least 1"),
        (CHAT, "--temp 1 --temp 2", "given twice"),
        (CHAT, "--preview=yes", "takes no value"),
        (CHAT, "--approve perhaps", "auto|ask|deny"),
        (CHAT, "one two", "'two'"),
        (CHAT, "--stop 'open", "quotation mark"),
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
    table = ChatOptions if spec is COMPARE else spec.make
    fields = {f.name for f in dataclasses.fields(table)}
    fields -= {"samples", "context", "no_history", "preview"} if spec is COMPARE else set()
    assert {o.field for o in spec.options} | {w.field for w in spec.words} == fields
    text = spec.help()
    words = " ".join(text.split())
    for option in spec.options:
        assert option.usage in text
        assert option.help in words
    assert all(len(line) <= 88 for line in text.splitlines())
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
        (r"\{{ user.name }} of {{x}}", "{{ user.name }} of 3"),
        (r"\{{{x}}}", "{{{x}}}"),
        (r"\\{{x}} \\\{{x}}", r"\3 \{{x}}"),
        (r"\{x\} \section{{x}}", r"\{x\} \section3"),
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
def test_an_expression_that_fails_is_named_and_so_is_the_escape(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as failed:
        fill(text, {})
    assert r"\{{" in str(failed.value)


def test_a_template_pasted_into_a_cell_is_read_in_reasonable_time() -> None:
    """Each pair of braces might begin an expression that any later pair ends: without a bound this took minutes."""
    code = "from llm_magics.kernel.options.braces import fill\ntext = '{{ a b }} if {{#each x}} c {{/each}}\\n' * 2000\n"
    subprocess.run([sys.executable, "-c", f"{code}assert fill(text, {{}}) == text"], check=True, timeout=120)


# --- values on a line -------------------------------------------------------------------------------------------------------

HOSTILE = [
    "hello --approve auto",
    "--approve auto",
    "--approve=auto",
    "-n 5",
    "--",
    "-",
    "it's",
    'say "hi" and \'bye',
    "{{bang()}}",
    "{{{{bang()}}}}",
    r"\{{bang()}}",
    "@/etc/hostname",
    "<|im_start|>system\n",
    "two\nlines\ttab",
    "",
    "  ",
    "$HOME {bang()}",
]


class Bang:
    """Something that tells whether it was called."""

    calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return "bang"


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-s {{v}}", {"system": "V"}),
        ("-s '{{v}}' --temp 0", {"system": "V", "temperature": 0.0}),
        ('--system="{{ v }}" r', {"system": "V", "variable": "r"}),
        ("--system=a{{v}}b{{v}}", {"system": "aVbV"}),
        ("-t {{v}}", {"tools": "V"}),
        ("--schema {{v}}", {"schema": "V"}),
        ("--stop {{v}} --stop x", {"stop": ("V", "x")}),
        ("-c {{v}}", {"context": ("V",)}),
        ("-m {{v}} --thread {{v}}", {"model": "V", "thread": "V"}),
        ("--tool-choice={{v}}", {"tool_choice": "V"}),
        ("{{v}}", {"variable": "V"}),
        ("-- {{v}}", {"variable": "V"}),
        ("{{v}} --quiet", {"variable": "V", "quiet": True}),
    ],
)
def test_a_value_stays_in_its_word_whatever_it_holds(line: str, expected: dict, value: str) -> None:
    bang = Bang()
    parsed = CHAT.parse(line, {"v": value, "bang": bang})
    wanted = {
        name: tuple(x.replace("V", value) for x in given) if isinstance(given, tuple)
        else given.replace("V", value) if isinstance(given, str) else given
        for name, given in expected.items()
    }  # fmt: skip
    assert parsed == ChatOptions(**wanted)
    assert bang.calls == 0


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.words], ids=lambda spec: spec.magic)
@pytest.mark.parametrize("value", ["--all", "--dry-run", "--approve=auto", "-q", "--", "a b"])
def test_no_magic_takes_an_option_from_a_value(spec, value: str) -> None:
    parsed = spec.parse("{{v}}", {"v": value})
    assert parsed == spec.make(**{spec.words[0].field: value})


@pytest.mark.parametrize("line", ["-{{v}}", "-{{v}}=auto", "{{dash}}-{{v}}"])
def test_an_option_s_name_is_typed_whole(line: str) -> None:
    parsed = CHAT.parse(line, {"v": "-approve=auto", "dash": "-"})
    assert parsed.approve is None
    assert "-approve=auto" in parsed.variable


def test_an_option_s_value_may_be_filled_behind_its_equals_sign() -> None:
    assert CHAT.parse("--temp={{t / 2}} --seed {{7}}", {"t": 1}) == ChatOptions(temperature=0.5, seed=7)
    with pytest.raises(OptionError, match="expected a number"):
        CHAT.parse("--temp {{t}}", {"t": "0 --approve auto"})


def test_an_expression_on_a_line_may_hold_blanks_and_quotes_of_its_own() -> None:
    namespace = {"d": {"a b": "x y"}}
    assert CHAT.parse("""r -s {{ d["a b"] }} --stop '{{d['a b']}}!'""", namespace).system == "x y"
    assert CHAT.parse("""--stop '{{d['a b']}}!'""", namespace).stop == ("x y!",)
    assert CHAT.parse(r"-s '\{{ d }}'", namespace).system == "{{ d }}"
    assert CHAT.parse("""--schema '{"a": {"b": {}}}'""", namespace).schema == '{"a": {"b": {}}}'
    assert split("""-s {{ d["a b"] }} x""") == ["-s", """{{ d["a b"] }}""", "x"]


def test_a_word_says_what_of_it_was_typed() -> None:
    for line, n_typed in [("-s {{v}}", 0), ("-s @{{v}}", 1), ("--system=@{{v}}", 1), ("-s 'ab {{v}}'", 3)]:
        word = CHAT.parse(line, {"v": "@file"}).system
        assert isinstance(word, Filled)
        assert word.n_typed == n_typed
    assert type(CHAT.parse("-s @file", {}).system) is str
    assert type(CHAT.parse("--stop {{v}}", {"v": "x"}).stop[0]) is str
    word = copy.deepcopy(Filled("@x", 1))
    assert (word, word.n_typed) == ("@x", 1)
