"""Law 8: give a template's markers and JSON keys fresh names, or its tags other brackets or none, in all that a case says.

Words are renamed where a template *writes*: in its plain text, and in string constants that are more than one bare name (a bare
name is a key or a role, which belongs to the messages and not to the template). Words that also occur in what the cases speak
of (tools, arguments, prose) keep their names, because there they are no markers.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from llm_magics.chat.analysis.overrides import Override
from llm_magics.chat.encodings.syntax import JsonCall
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.syntax.tags import tags
from llm_magics.errors import TemplateError
from llm_magics.messages import Message, ToolCall, ToolSpec, user

Case = dict[str, Any]
_WORD = re.compile(r"[^\W\d_]\w{2,}")
_STRING = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.S)
_BLOCK = re.compile(r"""\{#.*?#\}|\{[%{](?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^'"])*?[%}]\}""", re.S)
_SQUARE_TAG = re.compile(r"\[(/?[A-Z_]{2,})\]")
_ROLES = {"system", "user", "assistant", "tool", "developer", "model"}


class Renaming:
    """A mapping of words, applied to whole words only; the ``n`` of a line break's escape is part of none."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = dict(words)
        joined = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        self._pattern = re.compile(rf"(?:(?<!\w)|(?<=\\[nt]))(?:{joined})(?!\w)") if words else None

    def text(self, text: str) -> str:
        """A text with the words renamed."""
        return self._pattern.sub(lambda m: self.words[m.group()], text) if self._pattern else text

    def template(self, source: str) -> str:
        """A template with the words renamed wherever it writes them."""
        return "".join(self.text(piece) if own else piece for own, piece in _pieces(source))

    def case(self, case: Case) -> Case:
        """A case with its answer, and what the answer means, renamed."""
        expected = dict(case["expected"])
        for part in ("content", "reasoning_content"):
            expected[part] = self.text(expected[part])
        expected["tool_calls"] = [
            {**call, "id": self.text(call.get("id") or ""), "arguments": self.text(call["arguments"])}
            for call in expected["tool_calls"]
        ]
        return {**case, "model_output": self.text(case["model_output"]), "expected": expected}

    def value(self, value: Any) -> Any:
        """Declarative data, e.g. an override, with every string renamed."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, tuple):
            return tuple(self.value(v) for v in value)
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: self.value(getattr(value, f.name)) for f in fields(value)})
        return value

    def overrides(self, overrides: Iterable[Override]) -> tuple[Override, ...]:
        """A table of overrides for renamed templates."""
        return tuple(self.value(o) for o in overrides)


class Brackets:
    """Other brackets for tags: ``<think>`` and ``[INST]`` become ``«think»`` and ``«INST»``, wherever they are written."""

    def __init__(self, pair: str, kept: Iterable[str] = ()) -> None:
        self.first, self.last = pair[0], pair[-1]
        self._kept = re.compile("(" + "|".join(map(re.escape, kept)) + ")") if kept else None

    def text(self, text: str) -> str:
        """A text with other brackets; those of JSON and of lists stay, and so do markers that are kept."""
        pieces = self._kept.split(text) if self._kept else [text]
        return "".join(piece if i % 2 else self._renamed(piece) for i, piece in enumerate(pieces))

    def _renamed(self, text: str) -> str:
        text = _SQUARE_TAG.sub(lambda m: f"<{m.group(1)}>", text) if self.first != "[" else text
        return text.replace("<", self.first).replace(">", self.last)

    def template(self, source: str) -> str:
        """A template with other brackets wherever it writes them; its comparisons stay."""
        return "".join(self.text(piece) if own else piece for own, piece in _pieces(source))

    def case(self, case: Case) -> Case:
        """A case with other brackets in the conversation, in the answer, and in what the answer means."""
        expected = self.value(case["expected"])
        inputs = {**case["inputs"], "messages": self.value(case["inputs"]["messages"])}
        return {**case, "inputs": inputs, "model_output": self.text(case["model_output"]), "expected": expected}

    def value(self, value: Any) -> Any:
        """Data with other brackets in every string."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.value(v) for v in value)
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: self.value(getattr(value, f.name)) for f in fields(value)})
        return value

    def overrides(self, overrides: Iterable[Override]) -> tuple[Override, ...]:
        """A table of overrides for templates with other brackets."""
        return tuple(self.value(o) for o in overrides)


def other_brackets(fmt: ChatFormat, pair: str) -> Brackets:
    """Other brackets for one template; markers that are ours and not the template's keep theirs."""
    return Brackets(pair, fmt.tools.markers if fmt.tools.shape == "generic" else ())


class BareWords(Brackets):
    """No brackets at all: ``<tool_call>`` becomes a word without any sign, wherever it is written."""

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__("<>")
        self.words = dict(words)
        joined = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        self._pattern = re.compile(joined) if words else None

    def text(self, text: str) -> str:
        """A text with words in place of the tags."""
        return self._pattern.sub(lambda m: self.words[m.group()], text) if self._pattern else text

    def glued(self, texts: Iterable[str]) -> set[str]:
        """The tags whose words would stand beside another word somewhere in these texts, and would not be told from it."""
        renamed = [self.text(text) for text in texts]
        return {tag for tag, word in self.words.items() if any(re.search(rf"\w{word}|{word}\w", text) for text in renamed)}


def bare_words(fmt: ChatFormat, cases: Iterable[Case], overrides: Iterable[Override], seed: int = 0) -> BareWords:
    """Words in place of those tags of calls and thoughts that stand free: no other word touches them, wherever they stand.

    Thoughts that the template itself never writes keep their tags: a prompt that ends in a word does not say what closes it.
    """
    dice, cases, source = random.Random(seed), list(cases), fmt.template.source
    known = [source, *_strings(tuple(overrides))]
    markers = list(fmt.tools.markers) if fmt.tools.shape != "generic" else []
    markers += [fmt.reasoning.start, fmt.reasoning.end] if fmt.reasoning is not None and fmt.reasoning.field else []
    written = dict.fromkeys(tag for marker in markers for tag in tags(marker) if any(tag in text for text in known))
    said = [text for case in cases for text in (case["model_output"], *_strings(tuple(case["expected"].values())))]
    texts = [*said, *_written(fmt)]
    found = BareWords({tag: _fresh(dice, "W") for tag in written})
    while glued := found.glued(texts):
        found = BareWords({tag: word for tag, word in found.words.items() if tag not in glued})
    return found


def _written(fmt: ChatFormat) -> Iterator[str]:
    """What a template and our writer write of thoughts and calls."""
    tool = ToolSpec("qtool", "", {"type": "object", "properties": {"qkey": {"type": "string"}}})
    calls = tuple(ToolCall("qtool", '{"qkey": "qvalue"}', f"qidabcde{i}") for i in range(2))
    yield write_calls(fmt.tools, calls)
    said = [Message("assistant", "qsaid"), Message("assistant", "qsaid", reasoning="qthought")]
    said += [Message("assistant", tool_calls=calls), Message("assistant", reasoning="qthought", tool_calls=calls)]
    for turn in [[], *([message] for message in said)]:
        for thinks in (True, False):
            try:
                yield fmt.render([user("qasked"), *turn], tools=[tool], enable_thinking=thinks).text.rpartition("qasked")[2]
            except TemplateError:
                continue


def renaming(fmt: ChatFormat, cases: Iterable[Case], seed: int) -> Renaming:
    """Fresh names for the markers and JSON keys of one template, the same for the same seed."""
    dice = random.Random(seed)
    spoken = _ROLES | set(_WORD.findall(json.dumps([_spoken(c) for c in cases], ensure_ascii=False)))
    source = fmt.template.source
    written = {w for own, text in _pieces(source) if own for w in _WORD.findall(text)}
    bare = {w for own, text in _pieces(source) if not own for w in _WORD.findall(text) if _STRING.fullmatch(text)}
    words = sorted((_marker_words(fmt) & written) - spoken - bare)
    return _without_foreign_keys(fmt, Renaming({w: _fresh(dice, w) for w in words}))


def _spoken(case: Case) -> Any:
    """What a case speaks of, besides the template's own markers."""
    calls = [{**c, "id": ""} for c in case["expected"]["tool_calls"]]
    plain = {k: re.sub(r"<[^<>]*>|\[[^\[\]]*\]", " ", case["expected"][k]) for k in ("content", "reasoning_content")}
    tools = [
        [t["function"]["name"], list((t["function"].get("parameters") or {}).get("properties") or {})]
        for t in case["inputs"]["tools"]
    ]
    return [calls, plain, tools, case["inputs"]["messages"]]


def _pieces(source: str) -> Iterator[tuple[bool, str]]:
    """The template in pieces, each with whether the template writes it: plain text, and strings that are no bare names."""
    at = 0
    for block in _BLOCK.finditer(source):
        yield True, source[at : block.start()]
        inner = block.start()
        for string in _STRING.finditer(source, block.start(), block.end()):
            yield False, source[inner : string.start()]
            yield not re.fullmatch(r"\w*", string.group()[1:-1]), string.group()
            inner = string.end()
        yield False, source[inner : block.end()]
        at = block.end()
    yield True, source[at:]


def _marker_words(fmt: ChatFormat) -> set[str]:
    texts = [fmt.turn.generation_prompt, fmt.turn.content_start, fmt.turn.content_end, fmt.turn.end, *fmt.turn.extra_ends]
    if fmt.reasoning is not None:
        texts += [fmt.reasoning.start, fmt.reasoning.end, fmt.reasoning.then]
    texts += list(_strings(fmt.tools))
    return {w for text in texts for w in _WORD.findall(text)} - {"json", "python", "field", "before", "after", "carries"}


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _strings(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            if f.name not in ("type_names", "order", "id_place", "constants"):
                yield from _strings(getattr(value, f.name))


def _fresh(dice: random.Random, word: str) -> str:
    made = "".join(dice.choice("bcdfghjklmnpqrstvwxz") + dice.choice("aeiou") for _ in range(4))
    return made.upper() if word.isupper() else made


def _without_foreign_keys(fmt: ChatFormat, named: Renaming) -> Renaming:
    """Leave out keys that the template does not write itself, but takes over from the messages (``tool_call|tojson``)."""
    call = fmt.tools.call
    if not isinstance(call, JsonCall):
        return named
    renamed = ChatFormat.from_template(named.template(fmt.template.source)).tools
    keys = {k for path in (call.name, call.arguments, call.id) for k in path}
    found = set(_strings(renamed.call)) if isinstance(renamed.call, JsonCall) else set()
    foreign = {k for k in keys if k in named.words and named.words[k] not in found}
    return Renaming({w: n for w, n in named.words.items() if w not in foreign})
