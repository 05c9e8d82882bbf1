"""How long the analysis of a template takes, and how fast answers are read.

    python -m tests.bench.templates DIR_OR_FILE...

For each template: seconds for a first analysis (nothing cached), and microseconds per character for an answer of 100,000
characters with a call in it, fed character by character. The bound on analysis is 0.5 s.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from llm_magics.chat.analysis import analysis
from llm_magics.chat.encodings.writer import write_calls
from llm_magics.chat.format import ChatFormat
from llm_magics.messages import ToolCall, ToolSpec, user

TOOL = ToolSpec("look_up", "", {"type": "object", "properties": {"word": {"type": "string"}}})


def analysis_seconds(source: str) -> float:
    """Analyse a template from nothing."""
    analysis._analyse.cache_clear()
    began = time.perf_counter()
    ChatFormat.from_template(source)
    return time.perf_counter() - began


def microseconds_per_character(fmt: ChatFormat) -> float:
    """Read a long answer, one character at a time."""
    call = ToolCall("look_up", '{"word": "' + "ash " * 12_500 + '"}', "abcdefgh1")
    text = "Some words. " * 4_000 + write_calls(fmt.tools, [call])
    parser = fmt.parser([TOOL], prompt=fmt.render([user("hi")], tools=[TOOL], enable_thinking=False))
    began = time.perf_counter()
    for character in text:
        parser.feed(character)
    parser.finish()
    return (time.perf_counter() - began) / len(text) * 1e6


def main(names: list[str]) -> int:
    """Print a line per template and the slowest analysis; fail where that takes longer than the bound."""
    paths = [p for name in names for p in (sorted(Path(name).glob("*.jinja")) if Path(name).is_dir() else [Path(name)])]
    slowest = 0.0
    for path in paths:
        source = path.read_text(encoding="utf-8")
        seconds = min(analysis_seconds(source) for _ in range(2))
        slowest = max(slowest, seconds)
        speed = microseconds_per_character(ChatFormat.from_template(source))
        print(f"{path.stem[:48]:48} {seconds:6.3f} s  {speed:6.2f} us/char")
    print(f"slowest analysis: {slowest:.3f} s")
    return 0 if slowest < 0.5 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
