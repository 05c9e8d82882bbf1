"""Read an answer that is cut into blocks, each with a header that names its kind and its recipient.

Headers are read leniently: models double their tags, put the recipient in the wrong place, or leave the block's opener out.
Text without a header is content.
"""

from __future__ import annotations

import re
from typing import Literal

from llm_magics.chat.encodings.encoding import text_until
from llm_magics.chat.scan.reader import Malformed, Reader, Reading, Truncated, scanner_of
from llm_magics.chat.syntax.syntax import BlockSyntax
from llm_magics.chat.syntax.tags import tag_spans

from .call import CallReader
from .callevents import OneCall
from .output import Begun, Output, Setting

BlockKind = Literal["content", "reasoning", "call", "other"]
_MAX_HEADER = 300
_NAME = re.compile(r"[\w.:/@+-]+")


class BlockReader:
    def __init__(self, setting: Setting, blocks: BlockSyntax, reader: Reader, output: Output) -> None:
        self._set = setting
        self._in = reader
        self._out = output
        self._blocks = blocks
        self._calls = CallReader(reader, setting.syntax, setting.tools, output.calls)
        self._names = {t.name for t in setting.tools}
        self._header_end = blocks.header_end.strip() or blocks.header_end
        self._thought = setting.reasoning.header(blocks.header_end)
        self._begins = self._beginnings()

    def _beginnings(self) -> list[str]:
        """The possible beginnings of a header."""
        blocks = self._blocks
        texts = [self._header_end, blocks.call, blocks.addressee]
        texts += [_first_tag(t) for t in (blocks.content, self._thought)]
        if not blocks.call.strip():  # the name itself is the header
            texts = [t + blocks.header_end for t in (blocks.content, self._thought, *self._names) if t]
        return [t.lstrip() for t in texts if t.strip()]

    def read(self) -> Reading[None]:
        header = self._set.prompt.generation_prompt.rpartition(self._blocks.start)[2]
        if self._header_end in header and header.strip():
            kind, name = self._classify(header.partition(self._header_end)[0])
            self._out.begun = Begun(self._set.syntax, header.lstrip(), self._in.checkpoint()) if kind == "call" else None
            yield from self._body(kind, name, "")
        else:
            yield from self._block(header)
        while (yield from self._next_block()):
            yield from self._block("")

    def _next_block(self) -> Reading[bool]:
        """Continue to the next block, with or without its opener."""
        self._out.layout()
        yield from self._in.space()
        if not (yield from self._in.peek()):
            return False
        yield from self._in.optional(self._blocks.start)
        return bool((yield from self._in.peek()))

    def _block(self, given: str) -> Reading[None]:
        """Read a header, whose beginning may be ``given`` in the prompt, and then the block."""
        checkpoint = self._in.checkpoint()
        if (yield from self._is_header(given)):
            most = _MAX_HEADER - len(given)
            try:
                header = given + (yield from text_until(self._in, [self._header_end], "the header", most, "marker"))
            except Malformed:
                if self._in.closed and not self._in.complete:  # cut off inside a header
                    return
            else:
                self._in.take(len(self._header_end), "marker")
                raw = self._in.consumed(checkpoint)
                kind, name = self._classify(header)
                if kind == "reasoning" and self._set.inline:
                    self._in.give_back(checkpoint)
                    self._in.take(len(raw), "text")
                self._out.begun = Begun(self._set.syntax, given.lstrip(), checkpoint) if kind == "call" else None
                yield from self._body(kind, name, raw)
                return
            self._in.give_back(checkpoint)
        yield from self._body("content", "", "")

    def _is_header(self, given: str) -> Reading[bool]:
        """Whether the next text begins like a header."""
        if given.strip():
            return True
        ahead = yield from self._in.space_ahead()
        return (yield from self._in.which(scanner_of(self._begins), ahead)) is not None

    def _classify(self, header: str) -> tuple[BlockKind, str]:
        blocks = self._blocks
        name = self._called(header)
        if name and self._set.calls_allowed and (name in self._names or blocks.call.strip() != blocks.addressee.strip()):
            return "call", name
        kinds: tuple[tuple[str, BlockKind], ...] = ((blocks.content.strip(), "content"), (self._thought.strip(), "reasoning"))
        if places := [(header.rfind(text), kind) for text, kind in kinds if text and text in header]:
            return max(places)[1], ""
        if blocks.addressee.strip() and blocks.addressee.strip() in header:
            return "other", header
        return "content", ""

    def _called(self, header: str) -> str:
        """The tool that a header addresses, or ""."""
        call = self._blocks.call.strip()
        if not call:
            return header.strip() if header.strip() in self._names else ""
        for marker in (call, self._blocks.addressee.strip()):  # models leave a namespace out: " to=f" for " to=functions.f"
            match = _NAME.match(header, header.find(marker) + len(marker)) if marker and marker in header else None
            if match and (marker == call or match.group() in self._names):
                return match.group()
        return ""

    def _body(self, kind: BlockKind, name: str, header: str) -> Reading[None]:
        if kind == "call":
            yield from self._call(name)
        elif kind == "reasoning":
            yield from self._reasoning(header)
        elif kind == "content":
            yield from self._text()
        else:
            self._out.notes.append(f"a block for another recipient was left out: {header.strip()}")
            yield from self._drop()

    def _reasoning(self, header: str) -> Reading[None]:
        """Read a thought; if inline, its header and its end are content too."""
        if self._set.inline:
            self._out.think(header)
        self._out.thinking = True
        found = yield from self._in.until(scanner_of(self._blocks.ends), self._set.thought, self._out.think)
        self._out.thinking = False
        if found is None:
            return
        end = self._in.take(found.end, "text" if self._set.inline else "marker")
        if self._set.inline:
            self._out.think(end)

    def _text(self) -> Reading[None]:
        """Read content, up to the block's end or the opener of a next block with a header."""
        stops = scanner_of([*self._blocks.ends, self._blocks.start])
        while True:
            found = yield from self._in.until(stops, "text", self._out.say)
            if found is None:
                return
            if found.value != self._blocks.start:
                self._out.layout()
                self._in.take(found.end, "marker")
                return
            if (yield from self._in.which(scanner_of(self._begins), found.end)) is not None:
                return
            self._out.say(self._in.take(found.end, "text"))

    def _drop(self) -> Reading[None]:
        """Drop a block that is not a part of the answer."""
        found = yield from self._in.until(scanner_of([*self._blocks.ends, self._blocks.start]), "dropped", lambda _: None)
        if found and found.value != self._blocks.start:
            self._in.take(found.end, "marker")

    def _call(self, name: str) -> Reading[None]:
        """Read the arguments; if they are malformed, the body is content."""
        self._out.interrupt()
        checkpoint = self._in.checkpoint()
        one = OneCall(self._out.calls, name)
        one.start()
        try:
            yield from self._before_arguments()
            if not (yield from self._empty()):
                yield from self._calls.arguments(one)
            one.end()
            yield from self._in.optional(self._set.syntax.call_end)
        except Malformed as error:
            yield from self._failed(error, checkpoint)
            return
        self._out.said = True
        ahead = yield from self._in.space_ahead()
        found = yield from self._in.which(scanner_of(self._blocks.ends), ahead)
        if found is not None:
            self._in.take(found.end, "marker")

    def _failed(self, error: Malformed, checkpoint: int) -> Reading[None]:
        if isinstance(error, Truncated) and not self._in.complete:
            self._in.take(self._in.rest, "call")
            self._out.notes.append(f"a call was cut off: {error}")
            return
        self._out.notes.append(f"not a tool call: {error}")
        self._out.calls.open = None
        self._out.begun = None
        self._in.give_back(checkpoint)
        yield from self._text()

    def _before_arguments(self) -> Reading[None]:
        """Read the text between header and arguments: the rest of the marker after the name."""
        how = self._set.syntax.named
        behind = how.name_again or how.name_end
        rest = behind.partition(self._header_end)[2] if self._header_end in behind else ""
        yield from self._in.expect(rest)
        if how.name_again:
            yield from self._in.name()
            yield from self._in.expect(how.name_end)
        yield from self._in.space()

    def _empty(self) -> Reading[bool]:
        """Whether the body is empty, a call without arguments. Raises Truncated if the answer was cut off there."""
        if not (yield from self._in.peek()):
            if not self._in.complete:
                raise Truncated("the text ends before the arguments")
            return True
        return (yield from self._in.which(scanner_of(self._blocks.ends))) is not None


def _first_tag(text: str) -> str:
    """The first tag of a header, or its first words, which tell it from content."""
    start, end = next(iter(tag_spans(text)), (len(text), len(text)))
    if not text[:start].strip():
        return text[:end]
    match = re.match(r"\s*\S+\s*\S*", text[:start])
    return match.group() if match else text
