"""What a turn has asked for and has called so far, and what a further call would add.

Small models write a call again for want of an answer, or make one up. A further call is worth making if it says something that
was asked and that no call has said yet: another item of the question, or a tool that the question names. So after "How many
apples and bananas?" and ``stock("apple")``, ``stock("banana")`` adds something, and ``stock("pear")`` nothing. An item of a
list that a call has given counts as asked, e.g. a file's name; what a single result says does not.

As long as the results of the calls before it are not there, a further call may not make them up. The numbers of another call
of the same tool, and all that another tool requires, must stand in the question: "Mail me the weather" is two calls, but the
mail cannot be written yet. A number that one tool was given is not for another, as in "Compute 42 * 18 and convert it".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.chat.syntax.compare import common_prefix
from llm_magics.messages import Message, ToolCall, ToolSpec
from llm_magics.schema.nodes import properties_of
from llm_magics.schema.normal import parameters

_WORD = re.compile(r"[^\W_]+")
_SHORT = 3  # letters
_PHRASE = 4  # words


@dataclass(frozen=True, slots=True)
class Course:
    """``asked`` is the user's latest message. ``told`` are the results of the calls ``made``; those ``failed`` gave an error.

    ``answered`` are calls whose results are still known: they may not be written again. ``pending`` did not run yet.
    """

    asked: str = ""
    told: tuple[str, ...] = ()
    made: tuple[ToolCall, ...] = ()
    failed: tuple[ToolCall, ...] = ()
    answered: tuple[ToolCall, ...] = ()
    pending: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message], answered: Sequence[ToolCall] = ()) -> Course:
        """The course of a conversation's last turn."""
        last = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
        mine = messages[last + 1 :]
        wrong = {message.tool_call_id for message in mine if message.is_error}
        calls = [call for message in mine for call in message.tool_calls]
        made = tuple(call for call in calls if call.id not in wrong)
        failed = tuple(call for call in calls if call.id in wrong)
        told = tuple(message.text for message in mine if message.role == "tool" and not message.is_error)
        return cls(messages[last].text if last >= 0 else "", told, made, failed, tuple(answered))

    def after(self, calls: Iterable[ToolCall]) -> Course:
        """The course once these calls are written, too."""
        calls = tuple(calls)
        made, answered, pending = ((*one, *calls) for one in (self.made, self.answered, self.pending))
        return replace(self, made=made, answered=answered, pending=pending)

    @property
    def taken(self) -> dict[str, list[dict[str, Any]]]:
        """The arguments that each tool may not be given again."""
        taken: dict[str, list[dict[str, Any]]] = {}
        for call in self.answered:
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(call.arguments or "{}")
                if isinstance(arguments, dict) and arguments not in taken.setdefault(call.name, []):
                    taken[call.name].append(arguments)
        return taken

    @property
    def begun(self) -> bool:
        return bool(self.made or self.failed)

    def objection(self, call: ToolCall, tool: ToolSpec | None = None) -> str:
        """Why this call of ``tool`` is not worth making; empty if it is."""
        if call.key in {one.key for one in self.answered}:
            return f"{call.name} was called like that already"
        failed = [one for one in self.failed if one.name == call.name]
        if len(failed) > 1 or any(_spelled(call, tool) <= _spelled(one, tool) for one in failed):
            return f"{call.name} failed {'twice' if len(failed) > 1 else 'with that'} already"
        if call.key in {one.key for one in self.made}:
            return ""  # something else has run since, and may have changed the result
        said = _words(text for one in self.made for text in _texts(one))
        listed = _words(item for text in self.told for item in _items(text))
        values = [_telling(_words([text])) for text in _texts(replace(call, name=""))]
        told = _words(self.told)
        new = [] if failed else self._asked(_words([call.name]))
        new += [word for words in values if 2 * len(found := self._asked(words)) >= len(words - told) for word in found]
        new += [word for words in values for word in words if not word.isdigit() and word in listed]
        if not any(not _among(atom, said, " ".join(said)) for atom in new):
            return f"{call.name} would add nothing that was asked"
        if self.pending and tool is not None and (unknown := self._unknown(call, tool)):
            return f"{call.name} would make up what no result has told yet: {unknown}"
        return ""

    def _asked(self, words: Iterable[str]) -> list[str]:
        asked = _words([self.asked])
        return [word for word in words if _among(word, asked, self.asked)]

    def _unknown(self, call: ToolCall, tool: ToolSpec) -> str:
        """A word that this call needs and that does not stand in the question."""
        given, required = json.loads(call.arguments or "{}"), tool.parameters.get("required", ())
        same = any(one.name == call.name for one in self.pending)
        words = _words(text for key in _free(tool) if key in given and key in required for text in _values(given[key]))
        asked = _words((self.asked, *self.told))
        used = {word for one in self.pending if not same for text in _texts(one) for word in _words([text]) if word.isdigit()}
        unknown = (word for word in sorted(words) if word.isdigit() or not same)
        return next((word for word in unknown if word in used or not _among(word, asked, self.asked)), "")


def _texts(call: ToolCall) -> Iterator[str]:
    """The tool's name and the argument values as texts; truth values say nothing."""
    yield call.name
    try:
        yield from _values(json.loads(call.arguments or "{}"))
    except (ValueError, RecursionError):
        yield call.arguments


def _spelled(call: ToolCall, tool: ToolSpec | None) -> set[str]:
    """The words and numbers of a call's values as they are spelled, without punctuation; not what is chosen from a list."""
    given = json.loads(call.arguments or "{}")
    values = (value for key, value in given.items() if tool is None or key in _free(tool))
    return {word for value in values for text in _values(value) for word in _WORD.findall(text)}


def _free(tool: ToolSpec) -> list[str]:
    """The parameters whose values are not chosen from a list."""
    return [key for key, node in properties_of(parameters(tool.parameters).object()).items() if "enum" not in node]


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item)
    elif isinstance(value, float) and value.is_integer():
        yield str(int(value))
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text.casefold())}


def _items(text: str) -> list[str]:
    """The items of a result that is a list, as JSON or in lines."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        lines = text.splitlines()
        return lines if len(lines) > 1 else []
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _telling(words: set[str]) -> set[str]:
    """The words of a value without those of its grammar: in a longer text the short ones, e.g. "is" and "the"."""
    return {word for word in words if len(words) <= _PHRASE or len(word) > _SHORT or not word.isascii() or word.isdigit()}


def _among(atom: str, words: Collection[str], text: str) -> bool:
    """Whether a word, or one alike, is among others; scripts without spaces are searched as text."""
    if not atom.isascii() and atom in text.casefold():
        return True
    return atom in words or (not atom.isdigit() and any(_alike(atom, word) for word in words))


def _alike(a: str, b: str) -> bool:
    """Whether two words begin alike, as "apple" and "apples" do, or "London" and "Londres"."""
    shared = len(common_prefix(a, b))
    return shared > _SHORT or (shared == _SHORT and shared == min(len(a), len(b)))
