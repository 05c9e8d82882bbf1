"""Find how arguments are written that are no JSON object: as tags, or as literals.

Both are read off what stands before and after keys and values. Strings in quotes differ from numbers in what is around them;
in tags they do not, unless the tag names the type.
"""

from __future__ import annotations

import re
from dataclasses import replace

from llm_magics.chat.syntax.compare import common_prefix, common_suffix, safe_prefix, safe_suffix
from llm_magics.chat.syntax.syntax import LiteralArguments, Shape, TaggedArguments, ToolSyntax
from llm_magics.chat.syntax.tags import opens_tag, tags

from .callprobe import FIRST, KEYS, SAMPLES, VALUES, CallRenderer


def read_arguments(text: str, mid_at: int, render: CallRenderer) -> tuple[ToolSyntax, int] | None:
    """Find how arguments that are no JSON object are written, in the text of a call whose name ends at ``mid_at``.

    Returns the syntax with its shape, its arguments and ``name_end``, and where the arguments end; None where they are neither
    tags nor literals.
    """
    first, key2 = (text.find(word, mid_at) for word in KEYS[:2])
    value, value2 = (text.find(word, mid_at) for word in VALUES.values())
    if not mid_at <= first < value < key2 < value2:
        return None
    to_key = text[mid_at:first]
    to_value = text[first + len(KEYS[0]) : value]
    to_next = text[value + len(VALUES["qkeya"]) : key2]
    rest = text[value2 + len(VALUES["qkeyb"]) :]
    numbers = _number_gap(render) or _string_gap(to_value, to_next)
    quoted = numbers is not None and to_value.startswith(numbers[0]) and to_value != numbers[0]
    if numbers is None or not quoted or not to_next.endswith(numbers[1]):
        tagged = _read_tags(text, rest, to_key, to_value, to_next, render)
        return tagged or _read_unlike(text, rest, to_key, to_value, to_next)
    if not numbers[1].strip():  # a template's mistake: nothing parts its arguments
        numbers = (numbers[0], ", ")
        to_next = to_next.rstrip() + ", "
    literals = _read_literals(text, rest, to_key, to_value, to_next, numbers, render)
    quote = to_next[: len(to_next) - len(numbers[1])]
    if literals is not None or quote != '"':
        return literals
    found = _read_tags(text, rest.removeprefix(quote), to_key, *numbers, render)  # JSON inside tags
    if found is None or found[0].tagged is None:
        return None
    plain = TaggedArguments(found[0].tagged.start, numbers[0], found[0].tagged.end, found[0].tagged.separator, json_values=True)
    return replace(found[0], tagged=plain), found[1]


def _number_gap(render: CallRenderer) -> tuple[str, str] | None:
    """What stands between key and value, and between value and next key, where the values are numbers."""
    text = render.calls((FIRST, {"qkeya": 31259, "qkeyb": 41259}))
    match = re.search(r"qkeya(.*?)31259(.*?)qkeyb", text, re.S)
    return (match.group(1), match.group(2)) if match else None


def _string_gap(to_value: str, to_next: str) -> tuple[str, str] | None:
    """The same, read off strings in plain quotes, where a template cannot write numbers at all."""
    quote = to_value[-1:]
    return (to_value[:-1], to_next[1:]) if quote in ("'", '"') and to_next.startswith(quote) and to_next[1:] else None


def _read_literals(
    text: str, rest: str, to_key: str, to_value: str, to_next: str, numbers: tuple[str, str], render: CallRenderer
) -> tuple[ToolSyntax, int] | None:
    quote_start = to_value[len(numbers[0]) :]
    quote_end = to_next[: len(to_next) - len(numbers[1])]
    pairs = {"(": ")", "{": "}", "[": "]", "<": ">"}
    opened = to_key.strip()
    if not opened or opened[-1] not in pairs or not rest.startswith(quote_end):
        return None
    close = pairs[opened[-1]]
    behind = rest[len(quote_end) :]
    if not behind.startswith(close):
        return None
    samples = render.calls((FIRST, {"qkeya": True, "qkeyb": {"qsub": "qitem"}}))
    plain_quote = quote_start in ("'", '"')
    literal = LiteralArguments(
        open=opened[-1],
        close=close,
        assign=numbers[0],
        separator=numbers[1],
        quote_start=quote_start,
        quote_end=quote_end,
        escapes=plain_quote,
        bare_keys=not re.search(r"""["']qsub["']""", samples),
        constants="python" if re.search(re.escape(numbers[0]) + "True", samples) else "json",
    )
    shape = Shape.PYTHONIC if plain_quote else Shape.LITERAL
    end = len(text) - len(behind) + len(close)
    return ToolSyntax(shape, literal=literal, name_end=to_key[: to_key.rfind(opened[-1])]), end


def _read_unlike(text: str, rest: str, to_key: str, to_value: str, to_next: str) -> tuple[ToolSyntax, int] | None:
    """Literals of which strings and numbers are written alike: all in quotes (``a:<q>x<q>``), or none (``a=x``).

    Quotes around everything say nothing of the type, so the schema does. Without any, a value cannot be told from the next
    argument, and the quotes of JSON and Python are due.
    """
    pairs = {"(": ")", "{": "}", "[": "]"}
    opened = to_key.strip()[-1:]
    quote = common_prefix(to_next, rest)
    close = pairs.get(opened, "")
    if not close or not rest.startswith(quote + close) or not to_value.strip():
        return None
    quote_start = next((t for t in reversed([*tags(to_value), quote]) if t and to_value.endswith(t)), "") if quote else ""
    plain = quote in ("", "'", '"')
    literal = LiteralArguments(
        open=opened,
        close=close,
        assign=to_value.removesuffix(quote_start),
        separator=to_next[len(quote) :] if to_next[len(quote) :].strip() else ", ",
        quote_start=quote_start or "'",
        quote_end=quote or "'",
        escapes=plain,
        quotes_all=bool(quote),
    )
    if quote and not quote_start:
        return None
    shape = Shape.PYTHONIC if plain else Shape.LITERAL
    end = len(text) - len(rest) + len(quote + close)
    return ToolSyntax(shape, literal=literal, name_end=to_key[: to_key.rfind(opened)]), end


def _read_tags(
    text: str, rest: str, to_key: str, to_value: str, to_next: str, render: CallRenderer
) -> tuple[ToolSyntax, int] | None:
    mirrored = KEYS[0] in to_next
    shared = to_next.replace(KEYS[0], "") if mirrored else to_next
    start = safe_suffix(to_key, shared)
    if mirrored:
        closer, _, tail = to_next.partition(KEYS[0])
        sign = next((c for c in reversed(closer) if opens_tag(c)), "")  # so that the rest of the closing tag is cut as a tag
        start = safe_suffix(to_key, f"{sign}q{tail}")
        end, end_tail, separator = closer, tail[: len(tail) - len(start)], ""
        behind = rest.partition(KEYS[1])[2]
        if not (rest.startswith(closer) and behind.startswith(end_tail)):
            return None
        used = len(closer) + len(KEYS[1]) + len(end_tail)
    else:
        gap = to_next[: len(to_next) - len(start)]
        end = safe_prefix(gap, rest) if gap != common_prefix(gap, rest) else gap
        end_tail, separator, used = "", gap[len(end) :], len(end)
    if not (start.strip() and to_value.strip() and end.strip()):
        return None
    tagged = TaggedArguments(start, to_value, end, separator, end_has_key=mirrored, end_tail=end_tail)
    tagged = _with_types(tagged, render)
    tagged = _with_values(tagged, render)
    name_end = to_key[: len(to_key) - len(start)]
    return ToolSyntax(Shape.TAGGED, tagged=tagged, name_end=name_end), len(text) - len(rest) + used


def _with_types(tagged: TaggedArguments, render: CallRenderer) -> TaggedArguments:
    """Find whether the tag names the value's type, by rendering one value of each."""
    begins = {"string": "qvala", "integer": "31259", "number": "31259", "boolean": "[Tt]rue"}
    begins |= {"array": r"\[", "object": r"\{", "null": "[Nn](ull|one)"}
    gaps: dict[str, str] = {}
    for kind, value in SAMPLES.items():
        found = re.search(f"{KEYS[0]}(.*?){begins[kind]}", render.calls((FIRST, {KEYS[0]: value})), re.S)
        if found:
            gaps[kind] = found.group(1)
    if len({gaps.get(kind, "") for kind in ("string", "integer", "boolean")}) < 2 or "string" not in gaps:
        return tagged
    string = gaps["string"]
    other = next(g for g in gaps.values() if g != string)
    start = _prefix_outside_words(string, other)
    end = _suffix_outside_words(string, other)
    if not start.strip() or not end.strip() or len(start) + len(end) > min(len(string), len(other)):
        return tagged
    named = {}
    for kind, gap in gaps.items():
        if gap.startswith(start) and end in gap[len(start) :]:
            named[kind] = gap[len(start) : gap.find(end, len(start))]
    return replace(tagged, type_start=start, key_end=end, type_names=tuple(named.items()))


def _prefix_outside_words(a: str, b: str) -> str:
    """The common beginning, ending outside a word."""
    shared = common_prefix(a, b)
    return re.sub(r"\w+$", "", shared) if re.match(r"\w", a[len(shared) :]) or re.match(r"\w", b[len(shared) :]) else shared


def _suffix_outside_words(a: str, b: str) -> str:
    """The common end, beginning outside a word."""
    return re.sub(r"^\w+", "", common_suffix(a, b))


def _with_values(tagged: TaggedArguments, render: CallRenderer) -> TaggedArguments:
    """Find how constants, nested values and awkward strings are written."""
    said = render.calls((FIRST, {"qkeya": True}))
    constants = "python" if "True" in said else "json"
    nested = render.calls((FIRST, {"qkeya": {"qsub": "qitem"}, "qkeyb": ["qelement"]}))
    mark = re.search(re.escape(tagged.start.strip()) + "qsub" + re.escape(tagged.key_end), nested)
    item = ""
    if mark:
        listed = re.search(r"(\w+)" + re.escape(tagged.key_end) + "qelement", nested)
        item = listed.group(1) if listed else ""
    awkward = "qa<qb>&qc"
    text = render.calls((FIRST, {"qkeya": awkward}))
    key = KEYS[0] + (".{0,40}?" if tagged.type_start else "") + re.escape(tagged.key_end)
    around = key + r"([^\n]{1,20})" + re.escape(awkward) + r"([^\n]{1,20}?)" + re.escape(tagged.end)
    raw = re.search(around, text)
    return replace(
        tagged,
        constants=constants,  # type: ignore[arg-type]  # one of the two literals by construction
        nested=bool(mark),
        item=item,
        raw_start=raw.group(1) if raw else "",
        raw_end=raw.group(2) if raw else "",
    )


_AWKWARD = {"X": "&", "Y": '"', "Z": "<", "W": ">", "V": "'"}  # a capital stands before each, to find it again


def with_escapes(syntax: ToolSyntax, render: CallRenderer) -> ToolSyntax:
    """Find how a template writes awkward characters of names and of keys, e.g. ``&`` as ``&amp;``."""
    odd = "QN" + "".join(capital + char for capital, char in _AWKWARD.items()) + "U"
    said = render.calls((odd, {odd.replace("QN", "QK"): "qvala"}))
    pattern = "(.*?)".join(_AWKWARD) + "(.*?)U"
    found = [re.search(lead + pattern, said) for lead in ("QN", "QK")]
    pairs = [tuple(zip(_AWKWARD.values(), match.groups(), strict=True)) if match else () for match in found]
    name, key = (tuple((char, written) for char, written in each if written not in ("", char)) for each in pairs)
    tagged = replace(syntax.tagged, escapes=key) if syntax.tagged and key else syntax.tagged
    return replace(syntax, escapes=name, tagged=tagged) if name or key else syntax
