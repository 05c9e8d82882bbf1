"""Tab on a magic's line: options, their values, and names of models, threads, tools and catalogue entries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from llm_magics.errors import OptionError
from llm_magics.kernel.options.line import Spec, split
from llm_magics.kernel.options.specs import SPECS
from llm_magics.kernel.options.tools import options_begun
from llm_magics.options import Option
from llm_magics.tools.define.registry import registered

if TYPE_CHECKING:
    from llm_magics.kernel.runtime import Runtime

_MAGIC = re.compile(r"\s*%%?(\w+)\s(.*)", re.DOTALL)
_FILLS = re.compile(r"\s*%%?(chat|compare|load_model|thread)\b")  # the magics with {{expressions}}
# e.g. "Explain {{df.he": open braces without an escape, and the name at the end
_BRACES = re.compile(r"(?<!\\)\{\{(?:(?!\}\}).)*?(?P<word>(?:[^\W\d]\w*\.)*(?:[^\W\d]\w*)?)$", re.DOTALL)


def start_completion(runtime: Runtime) -> Callable[[], None]:
    """Offer completions on the lines of these magics, without IPython's own; return what ends it."""

    @context_matcher(identifier="llm_magics", priority=100)
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        named = complete_braces(runtime, context.full_text, context.text_until_cursor)
        word, offers = named or complete_line(runtime, context.text_until_cursor)
        completions = [SimpleCompletion(text=offer, type="instance" if named else "magic") for offer in offers]
        if not offers and _ours_alone(context.text_until_cursor):
            completions = [SimpleCompletion(text=word, type="magic")]  # with no offer at all, IPython asks other matchers
        return {"completions": completions, "matched_fragment": word, "suppress": bool(completions), "ordered": True}

    matchers = runtime.shell.Completer.custom_matchers
    matchers.append(matcher)
    return lambda: matchers.remove(matcher)


def complete_braces(runtime: Runtime, cell: str, line: str) -> tuple[str, list[str]] | None:
    """Complete ``{{expression`` at the end of ``line`` with variables and attributes, e.g. "df.he" to "df.head"; None outside
    of braces, and in cells whose braces are text."""
    begun = _BRACES.search(line)
    if begun is None or not _FILLS.match(cell):
        return None
    word = begun["word"]
    completer = runtime.shell.Completer
    return word, list(completer.attr_matches(word) if "." in word else completer.global_matches(word))


def _ours_alone(line: str) -> bool:
    """Whether only this module can complete the line: no file, variable or question may follow."""
    found = _MAGIC.match(line)
    takes_file = found is not None and found[1] == "thread" and found[2].split(" ")[0] in ("export", "restore")
    return found is not None and found[1] in ("tools", "models", "thread", "unload_model") and not takes_file


def complete_line(runtime: Runtime, line: str) -> tuple[str, list[str]]:
    """The last word of ``line``, the text up to the cursor, and its completions; none if anything may be written."""
    found = _MAGIC.match(line)
    if found is None or found[1] not in SPECS or "\n" in line:
        return "", []
    spec, before = SPECS[found[1]], options_begun(found[2]) if found[1] == "tool" else found[2]
    if before is None:
        return "", []  # in a signature
    word = "" if not before or before[-1].isspace() else before.split()[-1]
    try:
        words = split(before[: len(before) - len(word)])
    except OptionError:
        return "", []  # inside quotes
    return word, sorted({offer for offer in _offers(runtime, spec, words, word) if offer.startswith(word)})


def _offers(runtime: Runtime, spec: Spec[object], words: list[str], word: str) -> Iterable[str]:
    option = spec.by_name.get(words[-1]) if words else None
    if option is not None and not option.flag:
        return _values(runtime, option, word)
    if word.startswith("-"):
        name, equals, value = word.partition("=")
        if equals and name in spec.by_name:
            return [f"{name}={offer}" for offer in _values(runtime, spec.by_name[name], value)]
        return [name for name in spec.by_name if name.startswith("--") or len(word) == 1]
    n_words = _plain_words(spec, words)
    if n_words < len(spec.words):
        expected = spec.words[n_words]
        return _values(runtime, expected, word) if not expected.after or words[0] in expected.after else []
    return spec.by_name if not word else []


def _plain_words(spec: Spec[object], words: list[str]) -> int:
    """How many of the words are neither options nor their values."""
    n, after_option = 0, False
    for word in words:
        option = spec.by_name.get(word)
        n += option is None and not after_option and not word.startswith("--")
        after_option = option is not None and not option.flag
    return n


def _values(runtime: Runtime, option: Option, word: str) -> Iterable[str]:
    """Completions of an option's value; ``word`` is its beginning, e.g. the list of tools "weather,plo"."""
    tools = [tool.name for tool in registered]
    listed = word[: word.rfind(",") + 1]
    match option.complete:
        case "models":
            from llm_magics.models.base import Model

            held = (name for name, value in runtime.shell.user_ns.items() if name[:1] != "_" and isinstance(value, Model))
            return [*runtime.residents, *held]
        case "catalog":
            from llm_magics.store.catalog import catalog

            return [name for entry in catalog() for name in entry.names]
        case "threads":
            return runtime.threads
        case "tools":
            return [listed + name for name in (*tools, *(f"@{name}" for name in registered.sets), "@toolbox", "none")]
        case "tool-names":
            return tools
        case "tool-lists":
            return [listed + name for name in tools]
        case "contexts":
            return ["none", "prev", "above", "all", *(f"tag:{tag}" for run in runtime.cells.runs for tag in run.tags)]
    return (*option.choices, *([option.free] if option.free else []))
