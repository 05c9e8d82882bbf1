"""The options of every magic, said once: the dataclasses they parse to and the Specs that parse them.

Those of ``%%tool`` and ``%tools`` are in :mod:`.tool_options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any, Literal

from .line import Option, Spec, Word, as_typed, auto_or, json_object, number, numbers, on_off
from .tools import TOOL, TOOLS

# What %%compare can vary.
VARIED = ("model", "system", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "think")


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What one ``%%chat`` line asks for; ``None`` and ``()`` leave the choice to the thread or the model."""

    variable: str = ""
    model: str = ""
    tools: str | None = None
    tool_choice: str | None = None
    max_steps: int | None = None
    max_calls: int | None = None
    approve: Literal["auto", "ask", "deny"] | None = None
    system: str | None = None
    context: tuple[str, ...] = ()
    schema: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    samples: int = 1
    stop: tuple[str, ...] = ()
    think: bool | None = None
    show_reasoning: Literal["fold", "full", "hide"] = "fold"
    thread: str = ""
    no_history: bool = False
    quiet: bool = False
    preview: bool = False
    record: bool = False


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What one ``%%compare`` line asks for: as ChatOptions, with every value of what varies."""

    variable: str = ""
    model: tuple[str, ...] = ()
    tools: str | None = None
    tool_choice: str | None = None
    max_steps: int | None = None
    max_calls: int | None = None
    approve: Literal["auto", "ask", "deny"] | None = None
    system: tuple[str, ...] = ()
    schema: str = ""
    temperature: tuple[float, ...] = ()
    top_p: tuple[float, ...] = ()
    top_k: tuple[int, ...] = ()
    min_p: tuple[float, ...] = ()
    repeat_penalty: tuple[float, ...] = ()
    seed: tuple[int, ...] = ()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    think: tuple[bool, ...] = ()
    show_reasoning: Literal["fold", "full", "hide"] = "fold"
    thread: str = ""
    quiet: bool = False
    record: bool = False

    def columns(self) -> list[tuple[dict[str, Any], ChatOptions]]:
        """One for every combination of what was given more than once: what is its own, and all that it asks with."""
        given = {name: getattr(self, name) for name in VARIED}
        several = [name for name, values in given.items() if len(values) > 1]
        once = {name: values[0] for name, values in given.items() if len(values) == 1}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in VARIED}
        own = [dict(zip(several, values, strict=True)) for values in product(*(given[name] for name in several))]
        return [(varied, ChatOptions(**rest, **once, **varied)) for varied in own]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What one ``%load_model`` line asks for; ``None`` is "auto", but for ``ctx``, where it leaves the choice to the kernel."""

    name: str
    alias: str = ""
    ctx: int | Literal["auto"] | None = None
    gpu_layers: int | None = None
    tensor_split: tuple[float, ...] = ()
    main_gpu: int | None = None
    kv: Literal["f16", "q8_0"] = "f16"
    flash_attn: Literal["auto", "on", "off"] = "auto"
    threads: int | None = None
    batch: int | None = None
    slots: int | None = None
    speculation: Literal["off", "lookup", "auto"] | None = None
    draft: str | None = None
    context_shift: bool = False
    park_memory: int | None = None
    park_disk: int | None = None
    device_sampling: bool = False
    deterministic: bool = False
    template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    ttl: float | None = None
    dry_run: bool = False

    def settings(self) -> dict[str, Any]:
        """The fields of ``models.loading.LoadSettings`` that were given."""
        given = {
            "ctx": self.ctx,
            "gpu_layers": self.gpu_layers,
            "threads": self.threads,
            "batch": self.batch,
            "slots": self.slots,
            "main_gpu": self.main_gpu,
            "speculation": self.speculation,
            "draft": self.draft,
            "park_memory": self.park_memory,
            "park_disk": self.park_disk,
            "template": self.template,
            "seed": self.seed,
        }
        always = {
            "tensor_split": self.tensor_split,
            "kv": self.kv,
            "flash_attn": self.flash_attn,
            "context_shift": self.context_shift,
            "device_sampling": self.device_sampling,
            "deterministic": self.deterministic,
            "chat_template_kwargs": self.template_kwargs,
        }
        return {**always, **{name: value for name, value in given.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class UnloadOptions:
    name: str = ""
    all: bool = False


@dataclass(frozen=True, slots=True)
class ThreadOptions:
    action: str = "show"
    name: str = ""
    thread: str = ""


@dataclass(frozen=True, slots=True)
class LlmOptions:
    action: str = "status"
    path: str = ""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Of a magic that takes none."""




def _context(word: str) -> Any:
    return word if word == "auto" else number(32, whole=True)(word)


_SEED = Option(("--seed",), "seed", "a cell that is run again gives the same answer", number(0, 2**32 - 1, True), "N")

CHAT = Spec(
    "%%chat",
    "Ask the model; the answer streams into the cell and joins the conversation.",
    ChatOptions,
    body="your message; {{expression}} stands for a value of yours, \\{{ for two braces, all other braces for themselves",
    refused={"-n": "It meant tokens here, and answers elsewhere. Write --max-tokens N, or --samples N for several answers."},
    words=(Word("variable", "VAR", "a variable for the Reply: .text .value .tool_calls .usage ..."),),
    options=(
        Option(("--model", "-m"), "model", "which loaded model answers", metavar="NAME", complete="models"),
        Option(
            ("--system", "-s"), "system", "the thread's system prompt from here on, or a file of it", as_typed, "TEXT|@FILE"
        ),
        Option(
            ("--context", "-c"),
            "context",
            "show the model other cells and their outputs: none, prev, above, all, tag:NAME",
            metavar="WHICH",
            complete="contexts",
            many=True,
        ),
        Option(("--tools", "-t"), "tools", "tools to offer: names with commas, @set, none", metavar="TOOLS", complete="tools"),
        Option(("--tool-choice",), "tool_choice", "auto, none, required, or the one tool to call", metavar="CHOICE"),
        Option(("--max-steps",), "max_steps", "how often the model may answer in this turn", number(1, whole=True), "N"),
        Option(("--max-calls",), "max_calls", "how many tools one answer may call", number(1, whole=True), "N"),
        Option(("--approve",), "approve", "run tools at once, ask for each, or run none", choices=("auto", "ask", "deny")),
        Option(
            ("--schema",), "schema", "answer with JSON of this shape: a variable, or JSON schema in quotes", as_typed, "X"
        ),
        Option(("--temperature", "--temp"), "temperature", "0 takes the likeliest token each time", number(0), "X"),
        Option(("--top-p",), "top_p", "draw from the likeliest tokens that together have this share", number(0, 1), "X"),
        Option(("--top-k",), "top_k", "draw from this many likeliest tokens; 0 is all", number(0, whole=True), "N"),
        Option(("--min-p",), "min_p", "draw from tokens at least this likely relative to the best", number(0, 1), "X"),
        Option(("--repeat-penalty",), "repeat_penalty", "above 1 discourages repetition", number(0), "X"),
        _SEED,
        Option(
            ("--max-tokens", "--n-predict"), "max_tokens", "longest answer, in tokens", number(1, whole=True), "N"
        ),
        Option(("--samples",), "samples", "this many answers side by side", number(1, 32, True), "N", old=("--n",)),
        Option(("--stop",), "stop", "end the answer before this text; may be given again", metavar="TEXT", many=True),
        Option(("--think",), "think", "ask the template for reasoning, or for none", on_off, choices=("on", "off")),
        Option(
            ("--show-reasoning",), "show_reasoning", "how the reasoning is shown", choices=("fold", "full", "hide")
        ),
        Option(("--thread",), "thread", "the conversation of this cell", metavar="NAME", complete="threads"),
        Option(("--no-history",), "no_history", "ask outside of the conversation and remember nothing"),
        Option(("--quiet", "-q"), "quiet", "show nothing; for use with VAR"),
        Option(("--preview",), "preview", "send nothing; show the tokens that would be sent"),
        Option(("--record",), "record", "save what a replay needs: token ids, prompts, tools' schemas"),
    ),
    notes="One line is enough: %%chat --temp 0 What is a notebook? Options stand before the question.\n"
    "{{expression}} works on this line too: the value stays one word, and is never an option.\n"
    "Stop with the interrupt button: what came is kept.",
)

# %%compare's options are %%chat's, but for these.
_CHAT_ONLY = ("samples", "context", "no_history", "preview")

COMPARE = Spec(
    "%%compare",
    "Ask several models, or one model with several settings, the same; answers stand side by side, their differences marked.",
    CompareOptions,
    body=CHAT.body,
    refused=CHAT.refused,
    words=(Word("variable", "VAR", "a variable for the list of Replies"),),
    options=tuple(
        replace(option, many=True, help=f"{option.help}; may be given again") if option.field in VARIED else option
        for option in CHAT.options
        if option.field not in _CHAT_ONLY
    ),
    notes="What is given more than once varies: -m A -m B --temp 0 --temp 1 makes four columns. All have the same seed.\n"
    "Nothing joins the conversation; --thread NAME asks on top of one.",
)

LOAD_MODEL = Spec(
    "%load_model",
    "Load a GGUF model into this kernel; %%chat then uses it.",
    LoadOptions,
    words=(
        Word("name", "NAME", "a catalogue name, a path, hub OWNER/REPO:FILE, or a variable", required=True, complete="catalog"),
    ),
    options=(
        Option(("--as",), "alias", "what to call it here", metavar="ALIAS"),
        Option(
            ("--ctx", "--ctx-size"), "ctx", "context in tokens", _context, "N|auto", old=("-c",)
        ),
        Option(
            ("--gpu-layers", "-ngl", "--n-gpu-layers"),
            "gpu_layers",
            "layers on the GPU; -1 is all",
            auto_or(number(-1, whole=True)),
            "N|auto",
        ),
        Option(("--tensor-split", "-ts"), "tensor_split", "share of each GPU, e.g. 3,1", numbers, "A,B"),
        Option(("--main-gpu", "-mg"), "main_gpu", "the GPU to use where the model is not split", number(0, whole=True), "N"),
        Option(("--kv", "-ctk", "-ctv", "--cache-type"), "kv", "type of the KV cache", choices=("f16", "q8_0")),
        Option(("--flash-attn", "-fa"), "flash_attn", "flash attention", choices=("auto", "on", "off")),
        Option(("--threads",), "threads", "CPU threads", number(1, whole=True), "N", old=("-t",)),
        Option(("--batch", "-b", "--batch-size"), "batch", "prompt tokens evaluated at once", number(1, whole=True), "N"),
        Option(
            ("--slots", "-np", "--parallel"), "slots", "answers given at once", auto_or(number(1, whole=True)), "N|auto"
        ),
        Option(
            ("--template", "--chat-template-file"), "template", "a chat template instead of the model's own", metavar="FILE"
        ),
        Option(("--chat-template-kwargs",), "template_kwargs", "variables for the template", json_object, "JSON"),
        Option(
            ("--speculation",),
            "speculation",
            "guess that text repeats itself, and check (auto: on a CPU)",
            choices=("off", "lookup", "auto"),
        ),
        Option(
            ("--draft", "-md", "--model-draft"),
            "draft",
            "a small model of the same family that guesses",
            metavar="NAME",
            complete="catalog",
        ),
        Option(("--context-shift",), "context_shift", "let the oldest turns go where the context is full; else an error"),
        Option(
            ("--park-memory",), "park_memory", "host memory for threads that lost their slot", number(0, whole=True), "MIB"
        ),
        Option(
            ("--park-disk",), "park_disk", "disk space for them behind that; none if not said", number(0, whole=True), "MIB"
        ),
        Option(("--device-sampling",), "device_sampling", "draw tokens on the GPU where a request allows it"),
        Option(("--deterministic",), "deterministic", "one answer at a time, nothing reused, batches of one shape"),
        _SEED,
        Option(("--ttl",), "ttl", "unload when unused for this many seconds", number(1), "SECONDS"),
        Option(("--dry-run",), "dry_run", "load nothing; show what it would take"),
    ),
    notes="Known names: %models. Loading a name again with other options replaces it.",
)

UNLOAD_MODEL = Spec(
    "%unload_model",
    "Free a model's memory.",
    UnloadOptions,
    words=(Word("name", "NAME", "which; the current one if not said", complete="models"),),
    options=(Option(("--all",), "all", "every model"),),
)

MODELS = Spec("%models", "Show the models that are loaded, and those that can be.", NoOptions)

THREAD = Spec(
    "%thread",
    "Show, fork, switch, reset, export or restore a conversation, or pick one of several answers.",
    ThreadOptions,
    words=(
        Word("action", "ACTION", "show, list, use, fork, pick, reset, export, restore", complete="thread-actions"),
        Word("name", "NAME", "use, fork: the thread; pick: the answer's number; export, restore: the file", complete="threads"),
    ),
    options=(
        Option(("--thread",), "thread", "which conversation; the current one if not said", metavar="NAME", complete="threads"),
    ),
    notes="restore reads the saved notebook's outputs, e.g. after a kernel restart; export writes JSON (or markdown for *.md).",
)

LLM = Spec(
    "%llm",
    "Say how things stand, what is installed, or take records out of a notebook before it is shared.",
    LlmOptions,
    words=(
        Word("action", "ACTION", "status, doctor, strip", complete="llm-actions"),
        Word("path", "PATH", "strip: the notebook; this one if not said"),
    ),
)

SPECS: Mapping[str, Spec[Any]] = {
    "chat": CHAT,
    "compare": COMPARE,
    "load_model": LOAD_MODEL,
    "unload_model": UNLOAD_MODEL,
    "models": MODELS,
    "thread": THREAD,
    "llm": LLM,
    "tool": TOOL,
    "tools": TOOLS,
}
