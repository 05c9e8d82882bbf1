"""Near misses: the right call in the wrong wrapper becomes a call if it makes sense as nothing else.

Small models know which tool to call and with what, but often write the call as a code fence, as in their training data.
:class:`Recovery` stands behind a parser and reads its *content*, never its reasoning:

1. **Hold back.** From the beginning of a line, text is held only while it is a prefix of some call in some wrong wrapper, by
   the grammar of ``chat/recovery/wrappers.py``. The first character that fits no such call releases all of it as text.
2. **Arm.** Once the text can only be a call (it has the tool's name and has reached the first argument),
   :attr:`Recovery.opened` gives the grammar that holds the rest to the tool's schema.
3. **Judge.** A complete near miss becomes a call if its arguments are valid and the evidence says that the model meant it
   (``evidence.py``). Otherwise it stays text. :attr:`Recovery.notes` gives the evidence either way. If the model can be asked
   again (``withhold``), neither such text nor a call of what is not a tool comes out: :attr:`Recovery.vain` says why, and the
   answer ends there.
4. **Trust.** A recovered call runs without a question only if the whole message is calls and neither a tool result nor the
   user said it verbatim: a page that a tool has read must not be able to call tools through the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.errors import SchemaError
from llm_magics.events import ModelEvent, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_magics.messages import Message, ToolCall, ToolSpec
from llm_magics.schema.validate import validate

from .bodies import FoundCall
from .compiled import Offer, matchers, text_of
from .course import Course
from .evidence import FURTHER, LIMIT, Evidence, Rivals, Written, share_said
from .shape import Shape
from .units import Units
from .wrappers import first_signs, read_calls

_CUT_OFF = "the answer ended inside a call in the wrong wrapper"


@dataclass(frozen=True, slots=True)
class Opened:
    """A near miss that can only be a call: the grammar for the whole of it, and its text so far."""

    grammar: str
    written: str


class Recovery:
    """The parser's sink for plain content: text and calls come out.

    ``said``: the texts of tools and user, in which a trusted call must not occur. ``course``: what was asked and called so far.
    ``withhold``: the model is asked again if it calls in vain. ``number`` gives the index and the id of the next call; replace
    it to number the template's own calls as well.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        syntax: ToolSyntax,
        *,
        said: Sequence[str] = (),
        parallel: bool = True,
        course: Course | None = None,
        withhold: bool = False,
    ) -> None:
        self.notes: list[str] = []
        self.vain = ""
        self._course = course or Course()
        self._withhold = withhold
        self._shape: Shape | None = None  # reads on what is no near miss, but may be a call of what is no tool
        self.opened: Opened | None = None
        self.number = self._number
        self._numbered = 0
        self._tools = {tool.name: tool for tool in tools}
        self._syntax = syntax
        self._conversation = tuple(said)
        self._said = [_squeezed(text) for text in said]
        self._parallel = parallel
        self._starts = first_signs(list(self._tools))
        self._key = Offer.of(syntax, tuple(tools))
        self._held = ""  # a possible near miss, from the beginning of its line
        self._complete = 0  # the length of the complete near miss in it
        self._units = Units()  # the calls in it so far
        self._units_read = 0
        self._read: list[FoundCall] = []  # the calls in them
        self._matchers: tuple[Any, Any] | None = None
        self._line = ""  # the line so far, while nothing is held
        self._fence = False  # inside a code block that is not a call's
        self._text_seen = False  # something other than calls and white space came out
        self._waiting: list[tuple[FoundCall, str]] = []  # calls whose trust depends on what follows
        self._written = Written()

    @property
    def strict(self) -> str:
        """The grammar that holds near misses to the tools' schemas, without the calls that may not be written again; empty if
        none is left."""
        taken = json.dumps(self._course.taken, sort_keys=True)
        return text_of(self._key, "strict", self._parallel, taken)

    @property
    def curious(self) -> bool:
        """Whether the next token's probability matters: a near miss has begun, or could begin here."""
        return bool(self._held) or not (self._line.strip() or self._fence)

    @property
    def at_beginning(self) -> bool:
        """Whether a near miss could begin with the next token."""
        return self.curious and not self._held

    def observe(self, text: str, logprob: float | None, rivals: Rivals = ()) -> None:
        """Take a token's text and log-probability (None if the model had no choice), before its content is fed. At a beginning,
        ``rivals`` are the likeliest tokens in its place."""
        self._written.take(text, logprob, rivals, held=bool(self._held))

    def feed(self, text: str) -> list[ModelEvent]:
        """Read more content. Certain text comes out at once; calls come out when it is clear what follows them."""
        events: list[ModelEvent] = []
        for line in text.splitlines(keepends=True):
            if not self.vain:
                self._feed_line(line, events)
        return events

    def interrupt(self) -> list[ModelEvent]:
        """Reasoning, or a call in the template's own syntax, comes next: settle what is held."""
        return self._settle() + self._release(trusted=False)

    def finish(self, complete: bool = True) -> list[ModelEvent]:
        """The answer is over; ``complete`` says that the model ended it."""
        return self._settle() + self._release(trusted=complete and not self._text_seen)

    def _number(self) -> tuple[int, str]:
        self._numbered += 1
        return self._numbered - 1, f"call{self._numbered:05}"

    # --- holding back -------------------------------------------------------------------------------------------------------

    def _feed_line(self, text: str, events: list[ModelEvent]) -> None:
        if self._shape is not None:
            events += self._read_shape(text)
            return
        if not self._held:
            elsewhere = self._line.strip() or self._fence or not self._tools
            lead = len(text) if elsewhere else len(text) - len(text.lstrip())
            if lead:
                self._pass(text[:lead], events)
            if lead == len(text):
                return
            text = text[lead:]
            if text[0] not in self._starts:
                self._pass(text, events)
                return
        if self._matchers is None:
            self._matchers = matchers(self._key)
        reading, _ = self._matchers
        for i, char in enumerate(text):
            taken = list(char.encode("utf-8", "replace"))
            if reading.try_consume_tokens(taken) < len(taken):
                events += self._refused(text[i:])
                return
            self._held += char
            self._units.take(char)
            if not char.isspace() and reading.is_accepting():
                self._complete = len(self._held)
        self._look_whether_opened()

    def _look_whether_opened(self) -> None:
        if self.opened is not None or self._matchers is None:
            return
        probe = self._matchers[1].deep_copy()
        data = list(self._held.encode("utf-8", "replace"))
        if probe.try_consume_tokens(data) == len(data) and probe.is_accepting():
            self.opened = Opened(self.strict, self._held)

    def _refused(self, rest: str) -> list[ModelEvent]:
        """The next character fits no near miss: settle what is held, and read the rest again."""
        if self._complete:
            return [*self._settle(), *self.feed(rest)]
        held, events = self._drop(), list[ModelEvent]()
        if held and self._withhold and not self._fence:
            self._shape = Shape(self._syntax)
            return self._read_shape(held + rest)
        self._pass_block(held or rest, events)  # without a held character, this line cannot begin a call
        return [*events, *self.feed(rest)] if held else events

    def _read_shape(self, text: str) -> list[ModelEvent]:
        """Hold back what may be a call of no tool, until it is one or is text."""
        self._held += text
        assert self._shape is not None
        if not self._shape.take(text):
            return self._let_go()
        if self._shape.complete:
            self._in_vain("a call of what is no tool", self._drop())
        return []

    def _let_go(self) -> list[ModelEvent]:
        """What was held for its shape is text after all."""
        self._shape, events = None, list[ModelEvent]()
        self._pass_block(self._drop(), events)
        return events

    def _drop(self) -> str:
        held, self._held, self._complete, self._matchers, self.opened = self._held, "", 0, None, None
        self._units, self._units_read, self._read = Units(), 0, []
        return held

    # --- calls without end --------------------------------------------------------------------------------------------------

    def written(self) -> list[ToolCall]:
        """The complete calls held back so far, including those of an unfinished near miss."""
        if len(self._units.spans) != self._units_read:
            self._units_read = len(self._units.spans)
            self._read = read_calls(self._held[: self._units.spans[-1][1]], self._syntax, list(self._tools))
        found = [*(call for call, _ in self._waiting), *self._read]
        return [ToolCall(call.name, call.arguments, recovered=call.wrapper) for call in found]

    @property
    def idle(self) -> bool:
        """Whether two of those calls in a row add nothing: a model that writes on like this only repeats itself."""
        course = self._course
        last = self.written()[-2:] if self._withhold and course.begun and self._units.spans else []
        return len(last) == 2 and all(map(course.objection, last))

    @property
    def another_begun(self) -> bool:
        """Whether another call has begun after :meth:`written`."""
        return self._units.begun

    def stop(self) -> None:
        """End the near miss after its last complete call, although its wrapper is still open."""
        if self._units.spans:
            self._complete = self._units.spans[-1][1]
            self._held = self._held[: self._complete]

    def _pass(self, text: str, events: list[ModelEvent]) -> None:
        """Let text through, and keep track of lines and code blocks."""
        if text.strip():
            self._text_seen = True
            events += self._release(trusted=False)
        events.append(TextDelta(text))
        self._line += text
        if self._line.endswith("\n"):
            if self._line.lstrip().startswith("```"):
                self._fence = not self._fence
            self._line = ""

    def _pass_block(self, text: str, events: list[ModelEvent]) -> None:
        for line in text.splitlines(keepends=True):
            self._pass(line, events)

    # --- judging ------------------------------------------------------------------------------------------------------------

    def _settle(self) -> list[ModelEvent]:
        """Decide what the held text is, now that it has ended."""
        if self._shape is not None:
            return self._let_go()
        complete, opened = self._complete, self.opened
        held = self._drop()
        near_miss, rest = held[:complete], held[complete:]
        calls = read_calls(near_miss, self._syntax, list(self._tools)) if near_miss else []
        reason = self._objection(calls)
        if calls and not reason and self._withhold and self._course.begun:
            calls, reason = self._worth(calls)
        evidence = self._evidence(calls, near_miss) if calls and not reason else None
        meant = evidence is not None and evidence.meant
        if evidence is not None:
            reason = f"{'a call' if meant else 'not a call'} of {calls[0].name}: {evidence}"
        withheld = self._withhold and not meant and (reason or opened is not None)
        self.notes += () if withheld else filter(None, (reason,))
        events: list[ModelEvent] = []
        if meant:
            self._waiting += [(call, near_miss) for call in calls]
            self._line = near_miss.rpartition("\n")[2]
        elif withheld:
            self._in_vain(reason or _CUT_OFF, held)
            return events
        else:
            if not reason and opened is not None:
                self.notes.append(_CUT_OFF)
            self._pass_block(near_miss, events)
        self._pass_block(rest, events)
        return events

    def _in_vain(self, reason: str, text: str) -> None:
        self.vain = reason
        self.notes.append(f"withheld, to ask for words ({reason}): {text.strip()}")

    def _objection(self, calls: Sequence[FoundCall]) -> str:
        """Why this cannot be a call of the tools; empty if it can."""
        for call in calls:
            try:
                wrong = validate(json.loads(call.arguments), self._tools[call.name].parameters)
            except SchemaError as error:
                return f"not a call of {call.name}: {error.what}"
            if wrong:
                return f"not a call of {call.name}: {wrong[0]}"
        return ""

    def _worth(self, calls: Sequence[FoundCall]) -> tuple[list[FoundCall], str]:
        """The calls that are worth making after those before them, and if there is none, why."""
        course, worth, reason = self._course, list[FoundCall](), ""
        for found in calls:
            call = ToolCall(found.name, found.arguments)
            objection = course.objection(call, self._tools[call.name])
            reason = reason or objection
            if not objection:
                worth.append(found)
                course = course.after([call])
        return worth, "" if worth else reason

    def _evidence(self, calls: Sequence[FoundCall], text: str) -> Evidence:
        """What says whether the model meant these calls, the whole of a near miss."""
        # Behind calls tools are in use: to go on with words instead is no sign against one more call.
        opening = None if self._course.begun else self._written.opening(self._begins_call)
        said = share_said(calls, self._tools, self._conversation)
        base = FURTHER if self._withhold and self._course.begun else LIMIT
        return Evidence(opening, self._written.choices(text), said, base)

    def _begins_call(self, text: str) -> bool:
        """Whether a call can begin like this, in any wrapper or in the template's own syntax."""
        markers = (self._syntax.section_start.strip(), self._syntax.call_start.strip())
        if any(marker and (text.startswith(marker) or marker.startswith(text)) for marker in markers):
            return True
        data = list(text.encode("utf-8", "replace"))
        return bool(matchers(self._key)[0].try_consume_tokens(data) == len(data))

    # --- giving out calls -----------------------------------------------------------------------------------------------------

    def _release(self, *, trusted: bool) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        for found, text in self._waiting:
            safe = trusted and not self._quoted(found, text)
            index, call_id = self.number()
            call = ToolCall(found.name, found.arguments, call_id, found.wrapper, safe)
            events += [ToolCallStart(index, call.id, call.name, call.recovered), ToolCallDelta(index, call.arguments)]
            events.append(ToolCallEnd(index, call))
        self._waiting.clear()
        return events

    def _quoted(self, call: FoundCall, text: str) -> bool:
        """Whether a tool or the user said this call, in this wrapper or with the same name and arguments."""
        whole, arguments = _squeezed(text.strip("`")), _squeezed(call.arguments)
        return any(whole in said or (len(arguments) > 2 and arguments in said and call.name in said) for said in self._said)


def quotable(messages: Sequence[Message]) -> list[str]:
    """The texts in which a trusted call must not occur: the user's and the tools'."""
    return [m.text for m in messages if m.role in ("user", "tool")]


def _squeezed(text: str) -> str:
    return "".join(text.split())
