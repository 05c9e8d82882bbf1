"""The phases of an answer whose template uses markers: content, reasoning, calls."""

from __future__ import annotations

from llm_magics.chat.scan.reader import Malformed, Reader, Reading, Truncated
from llm_magics.chat.scan.scanner import Scanner
from llm_magics.chat.syntax.tags import opens_tag, tag_spans

from .call import CallReader
from .output import Begun, Output, Setting

_RETRY = 4096  # characters up to which a failed attempt is searched again for markers
_FENCE = "```"
_MAX_LEAD = 3


class PhaseReader:
    def __init__(self, setting: Setting, reader: Reader, output: Output) -> None:
        self._set = setting
        self._in = reader
        self._out = output
        syntaxes = (setting.syntax, *setting.alternates)
        self._readers = [CallReader(reader, syntax, setting.tools, output.calls) for syntax in syntaxes]
        found = dict.fromkeys(tag for calls in self._readers for tag in calls.openings)
        self._openings = {tag: self._readers_of(tag) for tag in found}
        self._content = self._content_scanner()
        self._reasoning = self._reasoning_scanner()

    def read(self) -> Reading[None]:
        prompt = self._set.prompt
        begun = self._set.reasoning.begun(prompt.generation_prompt)
        if begun is not None:
            yield from self._opened_thought(begun.lstrip())
        elif not prompt.continued and self._set.calls_allowed and not self._set.syntax.has_marker:
            yield from self._unmarked_call()
        while True:
            found = yield from self._in.until(self._content, "text", self._out.say)
            if found is None:
                return
            yield from self._marker(str(found.value), found.end)

    def _readers_of(self, tag: str) -> list[tuple[CallReader, str]]:
        """The readers of calls that begin with this tag, each with its opening, which may be a beginning of the tag."""
        own = [(calls, max((o for o in calls.openings if tag.startswith(o)), key=len, default="")) for calls in self._readers]
        return [(calls, opening) for calls, opening in own if opening]

    # --- which markers count where ------------------------------------------------------------------------------------------

    def _content_scanner(self) -> Scanner[str]:
        """Markers in content, each with its meaning. Of two that are spelt alike, the earlier one wins."""
        turn, reasoning = self._set.turn, self._set.reasoning
        markers: list[tuple[str, str]] = [(tag, "call") for tag in self._openings if self._set.calls_allowed]
        markers += [(opener, "think") for opener in reasoning.openers]
        markers += [(closer, "unthink") for closer in reasoning.closers]
        markers += [(turn.content_start.strip(), "frame"), (turn.content_end.strip(), "frame")]
        markers += [(text, "end") for text in self._ends()]
        markers += [(text, "opener") for text in _reopenings(turn.generation_prompt)]
        if self._set.fenced:
            markers.append((_FENCE, "fence"))
        return Scanner(dict(reversed(markers)))

    def _reasoning_scanner(self) -> Scanner[str]:
        markers = [(closer, "unthink") for closer in self._set.reasoning.closers]
        markers.append((self._set.turn.content_start.strip(), "frame"))
        markers += [(tag, "call") for tag in self._openings if self._set.calls_allowed]
        return Scanner(dict(reversed(markers)))

    def _ends(self) -> list[str]:
        return [text for end in (self._set.turn.end, *self._set.turn.extra_ends) for text in _whole_tag_prefixes(end.strip())]

    # --- content ------------------------------------------------------------------------------------------------------------

    def _marker(self, meaning: str, size: int) -> Reading[None]:
        if meaning == "call":
            yield from self._call_in_content(size)
        elif meaning == "think":
            yield from self._thought_in_content(size)
        elif meaning == "fence":
            yield from self._fence()
        elif meaning == "frame" or (meaning == "opener" and not self._out.said):
            self._out.layout()
            self._in.take(size, "marker")
        else:
            yield from self._stray(size)

    def _stray(self, size: int) -> Reading[None]:
        """A closing marker that closes nothing: dropped at the answer's edges and after a call, elsewhere a mention."""
        if not self._out.said or self._out.behind_marker or (yield from self._at_end(size)):
            self._out.layout()
            self._in.take(size, "marker")
        else:
            self._out.say(self._in.take(size, "text"))

    def _at_end(self, size: int) -> Reading[bool]:
        ahead = size
        while (char := (yield from self._in.peek(ahead))).isspace():
            ahead += 1
        following = (yield from self._in.which(self._content, ahead)) if char else None
        return not char or (following is not None and following.value not in ("call", "fence"))

    def _fence(self) -> Reading[None]:
        """A code fence around content that must be JSON: its line is not content."""
        self._out.layout()
        self._in.take(len(_FENCE), "marker")
        while (char := (yield from self._in.peek())) and char.isalpha():
            self._in.take(1, "marker")
        yield from self._in.space()

    # --- reasoning ----------------------------------------------------------------------------------------------------------

    def _opened_thought(self, begun: str) -> Reading[None]:
        """Continue the thought that the generation prompt has opened; ``begun`` is its text in the prompt."""
        self._out.hold()
        if begun.strip() and not self._set.prompt.continued:
            self._out.think(begun)
            self._out.thought = False
        yield from self._in_reasoning("")

    def _thought_in_content(self, size: int) -> Reading[None]:
        """A thought begins, unless its marker is a mention in a sentence."""
        if self._set.reasoning.is_mention(in_sentence=self._out.in_sentence, in_line=self._out.in_line):
            self._out.say(self._in.take(size, "text"))
            return
        self._out.layout()
        self._out.interrupt()
        marker = self._in.take(size, "text" if self._set.inline else "marker")
        if self._set.inline:
            self._out.think(marker)
        self._out.thought = False
        yield from self._in_reasoning(marker)

    def _in_reasoning(self, marker: str) -> Reading[None]:
        """Read a thought; ``marker`` opened it, if that was in the answer."""
        self._out.thinking = True
        yield from self._to_its_end(marker)
        self._out.thinking = False

    def _to_its_end(self, marker: str) -> Reading[None]:
        out = self._out
        if not (self._set.inline and marker) and (marker or not self._set.prompt.reasoning_prefix):
            yield from self._in.space()
        start = self._set.reasoning.start
        if not self._set.inline and (yield from self._in.optional(start)):  # models repeat the prompt's marker
            yield from self._in.space()
        while True:
            found = yield from self._in.until(self._reasoning, self._set.thought, out.think)
            if found is None:
                out.release()
                return
            if found.value != "call":
                break
            if not out.thought:  # before any thought, this is not a mention
                out.release()
                return
            if (yield from self._call_in_reasoning(found.end)):
                return
        if self._set.inline and found.value == "unthink" and (marker or out.thought):
            out.release(start)
            out.think(self._in.take(found.end, "text"))
            out.said = True
            return
        out.release()
        out.layout()
        self._in.take(found.end, "marker")
        out.part((yield from self._in.space()))

    def _call_in_reasoning(self, size: int) -> Reading[bool]:
        """Read a possible call with its events set aside; it is a call if and only if the answer ends with it."""
        out = self._out
        opening = self._in.text[self._in.at : self._in.at + size]
        checkpoint = self._in.checkpoint()
        counted = out.calls.set_aside()
        try:
            calls, own = self._openings[opening][0]
            yield from calls.section(calls.openings[own])
            real = yield from self._answer_ends()
        except Malformed:
            real = False
        found = out.calls.taken_back()
        if real:
            out.release()
            out.layout()
            out.interrupt()
            out.calls.give(*found)
            out.notes.append("a tool call ended the reasoning, which was not closed")
            return True
        out.calls.forget(counted)
        raw = self._in.consumed(checkpoint)
        self._in.give_back(checkpoint)
        out.think(self._in.take(size if len(raw) < _RETRY else len(raw), self._set.thought))
        return False

    def _answer_ends(self) -> Reading[bool]:
        yield from self._in.space()
        following = yield from self._in.which(self._content)
        if following is not None:
            return following.value == "end"
        return not (yield from self._in.peek()) and self._in.complete

    # --- calls --------------------------------------------------------------------------------------------------------------

    def _call_in_content(self, size: int) -> Reading[None]:
        """A call may begin: read it, or give its text back."""
        opening = self._in.text[self._in.at : self._in.at + size]
        (calls, own), *others = self._openings[opening]
        left_out = calls.left_out.get(own, "")
        marker = "" if left_out or self._out.in_line else own
        self._out.begun = Begun(calls.syntax, left_out, self._in.checkpoint(), marker=marker)
        empty = yield from calls.empty(calls.openings[own])
        if not empty:
            if others and (yield from self._tried(calls, own)):
                return
            calls, own = others[-1] if others else (calls, own)
            yield from self._attempt(calls, calls.openings[own], size)
            return
        self._out.begun = None
        if self._out.in_line and (yield from self._line_goes_on(empty)):
            self._out.say(self._in.take(empty, "text"))
        else:
            self._out.layout()
            self._in.take(empty, "marker")
            self._out.notes.append("a section of calls was empty")

    def _line_goes_on(self, ahead: int) -> Reading[bool]:
        while (char := (yield from self._in.peek(ahead))) and char.isspace() and char != "\n":
            ahead += 1
        return char not in ("", "\n")

    def _unmarked_call(self) -> Reading[None]:
        """A call without a marker can only be the answer's beginning, and has a tool's name."""
        start = behind = end = yield from self._in.space_ahead()
        lead: list[str] = []
        while len(lead) < _MAX_LEAD and (size := (yield from self._in.control_tag(behind))):
            lead.append(self._in.text[self._in.at + behind : self._in.at + behind + size])
            end = behind + size
            behind = yield from self._in.space_ahead(end)
        if (yield from self._readers[0].begins(behind)):
            stray = self._in.text[self._in.at + start : self._in.at + end]
            self._out.begun = Begun(self._readers[0].syntax, "", self._in.checkpoint(), stray=stray)
            finished = self._out.calls.finished
            yield from self._attempt(self._readers[0], tuple(lead), behind + 1)
            if self._out.calls.finished > finished:
                yield from self._tag_at_end()

    def _tag_at_end(self) -> Reading[None]:
        """A tag that looks like a control token and ends the answer after such calls is a marker, e.g. ``<|python_end|>``."""
        ahead = yield from self._in.space_ahead()
        size = yield from self._in.control_tag(ahead)
        behind = yield from self._in.space_ahead(ahead + size)
        if size and not (yield from self._in.peek(behind)):
            self._in.take(ahead + size, "marker")

    def _tried(self, calls: CallReader, opening: str) -> Reading[bool]:
        """Read a section with its events set aside, as another syntax begins alike; whether it was one, or was cut off."""
        out, before = self._out, self._in.checkpoint()
        counted = out.calls.set_aside()
        try:
            yield from calls.section(calls.openings[opening])
        except Malformed as error:
            found = out.calls.taken_back()
            if isinstance(error, Truncated) and not self._in.complete and out.calls.open is not None:
                out.calls.give(*found)
                self._in.take(self._in.rest, "call")
                out.notes.append(f"a call was cut off: {error}")
                return True
            out.calls.forget(counted)
            self._in.give_back(before)
            return False
        out.calls.give(*out.calls.taken_back())
        out.layout()
        out.said = True
        return True

    def _attempt(self, calls: CallReader, due: tuple[str, ...], size: int) -> Reading[None]:
        outside = self._in.checkpoint()
        finished = self._out.calls.finished
        try:
            yield from calls.section(due)
        except Malformed as error:
            again = calls.resume_at if self._out.calls.finished > finished else outside
            yield from self._failed(error, again, size if again == outside else 0, entered=calls.entered)
        else:
            self._out.layout()
            self._out.said = True

    def _failed(self, error: Malformed, again: int, size: int, *, entered: bool) -> Reading[None]:
        """An attempt failed: from ``again`` on, where the last finished call ended, it is text.

        ``size``: the length of the tag that looked like a call. Only the tag is certain to be text, and the rest is searched
        again, unless a call had begun or the rest is long.
        """
        out = self._out
        out.begun = None
        began = out.calls.open is not None
        if isinstance(error, Truncated) and not self._in.complete and (began or entered):
            self._in.take(self._in.rest, "call")
            out.notes.append(f"a call was cut off: {error}")
            return
        out.calls.open = None
        raw = self._in.consumed(again)
        self._in.give_back(again)
        if raw.strip():
            out.notes.append(f"not a tool call: {error}")
        if began or len(raw) >= _RETRY:
            out.say(self._in.take(len(raw), "text"))
        elif self._in.text[self._in.at : self._in.at + size] in self._ends():
            yield from self._stray(size)  # a call's first tag may also be what ends a turn
        else:
            out.say(self._in.take(size, "text"))


def _whole_tag_prefixes(end: str) -> list[str]:
    """A turn's end, and its beginnings that are whole tags: its last tag is often a token that never becomes text."""
    cuts = [stop for _, stop in tag_spans(end) if stop < len(end) and (end[stop].isspace() or opens_tag(end[stop]))]
    return list(dict.fromkeys([end, *(end[:c] for c in cuts)])) if end else []


def _reopenings(generation_prompt: str) -> list[str]:
    """The generation prompt and its last tags: models repeat them at the start of an answer."""
    text = generation_prompt.strip()
    starts = [start for start, _ in tag_spans(text)]
    return [text[s:] for s in dict.fromkeys([0, *starts]) if len(text[s:]) >= 4 and tag_spans(text[s:])]
