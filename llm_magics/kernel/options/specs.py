"""The options of every magic, as dataclasses; see also :mod:`llm_magics.models.settings` (a load's) and :mod:`.tools`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, get_args

from llm_magics.models.settings import SEED, LoadSettings
from llm_magics.options import Number, as_typed, on_off, option, options_of, whole, word
from llm_magics.tools.policy import Approve

from .line import Spec
from .tools import TOOL, TOOLS

_Shown = Literal["fold", "full", "hide"]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The options of ``%%chat``; ``None`` and ``()`` leave the choice to the thread or the model."""

    variable: str = word("VAR", "a variable for the Reply: .text .value .tool_calls .usage ...")
    model: str = option("", "--model -m", "which loaded model answers", str, "NAME", complete="models", varies=True)
    system: str | None = option(None, "--system -s", "the thread's system prompt from here on, or a file of it", as_typed,
        "TEXT|@FILE", varies=True, config="system")
    context: tuple[str, ...] = option((), "--context -c",
        "show the model other cells and their outputs: none, prev, above, all, tag:NAME", str, "WHICH", complete="contexts",
        many=True, alone=True)
    tools: str | None = option(None, "--tools -t", "tools to offer: names with commas, @set, none", str, "TOOLS",
        complete="tools")
    tool_choice: str | None = option(None, "--tool-choice", "auto, none, required, or the one tool to call", str, "CHOICE",
        config="tool_choice")
    max_steps: int | None = option(None, "--max-steps", "how often the model may answer in this turn", whole(1), "N",
        config="max_steps")
    max_calls: int | None = option(None, "--max-calls", "how many tools one answer may call", whole(1), "N",
        config="max_calls")
    approve: Approve | None = option(None, "--approve", "run tools at once, ask for each, or run none",
        choices=get_args(Approve), config="approve")
    schema: str = option("", "--schema", "answer with JSON of this shape: a variable, or JSON schema in quotes", as_typed, "X")
    temperature: float | None = option(None, "--temperature --temp", "0 takes the likeliest token each time", Number(0), "X",
        varies=True, trait="Temperature for cells without --temp; None leaves it to the model.")
    top_p: float | None = option(None, "--top-p", "draw from the likeliest tokens that together have this share", Number(0, 1),
        "X", varies=True)
    top_k: int | None = option(None, "--top-k", "draw from this many likeliest tokens; 0 is all", whole(0), "N", varies=True)
    min_p: float | None = option(None, "--min-p", "draw from tokens at least this likely relative to the best", Number(0, 1),
        "X", varies=True)
    repeat_penalty: float | None = option(None, "--repeat-penalty", "above 1 discourages repetition", Number(0), "X",
        varies=True)
    seed: int | None = option(None, *SEED, varies=True)
    max_tokens: int | None = option(None, "--max-tokens --n-predict", "longest answer, in tokens", whole(1), "N",
        config="max_tokens", trait="Longest answer for cells without --max-tokens; 0 leaves it open. (max_tokens is a limit.)")
    samples: int = option(1, "--samples", "this many answers side by side", whole(1, 32), "N", old="--n", alone=True)
    stop: tuple[str, ...] = option((), "--stop", "end the answer before this text; may be given again", str, "TEXT", many=True,
        config="stop")
    think: bool | None = option(None, "--think", "ask the template for reasoning, or for none", on_off, choices=("on", "off"),
        varies=True, config="thinking")
    show_reasoning: _Shown = option("fold", "--show-reasoning", "how the reasoning is shown", choices=get_args(_Shown))
    thread: str = option("", "--thread", "the conversation of this cell", str, "NAME", complete="threads")
    no_history: bool = option(False, "--no-history", "ask outside of the conversation and remember nothing", alone=True)
    quiet: bool = option(False, "--quiet -q", "show nothing; for use with VAR")
    preview: bool = option(False, "--preview", "send nothing; show the tokens that would be sent", alone=True)
    record: bool = option(False, "--record", "save what a replay needs: token ids, prompts, tools' schemas")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of ``%%compare``: those that all columns share, and every value of those that may vary, by field name."""

    common: ChatOptions
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, **given: Any) -> CompareOptions:
        """Separate the options that may vary from the others."""
        values = {one.field: given.pop(one.field) for one in options_of(ChatOptions) if one.varies and one.field in given}
        return cls(ChatOptions(**given), values)

    def columns(self) -> list[tuple[dict[str, Any], ChatOptions]]:
        """One column for every combination of the options given more than once: its own options, and all its options."""
        several = [name for name, values in self.values.items() if len(values) > 1]
        once = replace(self.common, **{name: values[0] for name, values in self.values.items() if len(values) == 1})
        own = [dict(zip(several, values, strict=True)) for values in product(*(self.values[name] for name in several))]
        return [(varied, replace(once, **varied)) for varied in own]


@dataclass(frozen=True, slots=True)
class LoadOptions(LoadSettings):
    """The options of ``%load_model``: the settings of the load, and the model's place in this kernel."""

    name: str = word("NAME", "a catalogue name, path, hub OWNER/REPO:FILE, server's URL, or variable; else the default model",
        "default", complete="catalog",
        trait="What %load_model loads without a name: a catalogue name, path or hub name; if empty, $LLM_MAGICS_DEFAULT_MODEL.")
    alias: str = option("", "--as", "what to call it here", str, "ALIAS")
    ttl: float | None = option(None, "--ttl", "unload when unused for this many seconds", Number(1), "SECONDS")
    dry_run: bool = option(False, "--dry-run", "load nothing; show what it would take")


@dataclass(frozen=True, slots=True)
class UnloadOptions:
    name: str = word("NAME", "which; the current one if not said", complete="models")
    all: bool = option(False, "--all", "every model")


@dataclass(frozen=True, slots=True)
class ThreadOptions:
    action: str = word("ACTION", "", "show", choices=("show", "list", "use", "fork", "pick", "reset", "export", "restore"))
    name: str = word("NAME", "use, fork: the thread; pick: the answer's number; export, restore: the file", complete="threads")
    thread: str = option("", "--thread", "which conversation; the current one if not said", str, "NAME", complete="threads")


@dataclass(frozen=True, slots=True)
class LlmOptions:
    action: str = word("ACTION", "", "status", choices=("status", "doctor", "strip"))
    path: str = word("PATH", "strip: the notebook; this one if not said")


@dataclass(frozen=True, slots=True)
class ModelsOptions:
    search: str = word("WORD", "all, or a word of a model's name, licence or description", choices=("all",))


CHAT = Spec(
    "%%chat",
    "Ask the model; the answer streams into the cell and joins the conversation.",
    ChatOptions,
    body="your message; {{expression}} becomes the value of an expression, \\{{ gives two braces; all other braces are text",
    refused={"-n": "Write --max-tokens N for a limit in tokens, or --samples N for several answers."},
    notes="One line is enough: %%chat --temp 0 What is a notebook? Options come before the question.\n"
    "{{expression}} works on this line too: the value stays one word, and is never an option.\n"
    "The interrupt button stops the answer; the text so far is kept.",
)

COMPARE = Spec(
    "%%compare",
    "Ask several models, or one model with several settings, the same question; answers are side by side, differences marked.",
    CompareOptions.of,
    body=CHAT.body,
    refused=CHAT.refused,
    table=[
        replace(one, many=True, help=f"{one.help}; may be given again") if one.varies
        else one if one.names else replace(one, help="a variable for the list of Replies")
        for one in options_of(ChatOptions) if not one.alone
    ],
    notes="An option given twice varies: -m A -m B --temp 0 --temp 1 makes four columns. All have the same seed.\n"
    "No answer joins the conversation; --thread NAME asks after the turns of that thread.",
)  # fmt: skip

LOAD_MODEL = Spec(
    "%load_model",
    "Load a GGUF model into this kernel, or a model on a server: %load_model http://HOST:PORT/v1; %%chat then uses it.",
    LoadOptions,
    notes="Known names: %models. Loading a name again with other options replaces it.\n"
    "A model on a server also takes --seed and --chat-template-kwargs; --ctx and --slots say what the server has, if it does "
    "not tell.",
)

UNLOAD_MODEL = Spec("%unload_model", "Free a model's memory.", UnloadOptions)

MODELS = Spec(
    "%models",
    "Show the models that are loaded, and those that can be loaded.",
    ModelsOptions,
    notes="Without WORD: what is on this disk, and the smallest of those that fit in memory now.",
)

THREAD = Spec(
    "%thread",
    "Show, fork, switch, reset, export or restore a conversation, or pick one of several answers.",
    ThreadOptions,
    notes="restore reads the saved notebook's outputs, e.g. after a kernel restart; export writes JSON (or markdown for *.md).",
)

LLM = Spec("%llm", "Show the state of this kernel or what is installed, or remove records from a notebook.", LlmOptions)

SPECS: Mapping[str, Spec[Any]] = {
    spec.magic.strip("%"): spec for spec in (CHAT, COMPARE, LOAD_MODEL, UNLOAD_MODEL, MODELS, THREAD, LLM, TOOL, TOOLS)
}
