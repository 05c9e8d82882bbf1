"""Fifteen conversations that every template must render with every word in it kept: plain, tools, history, parallel, odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_magics.messages import ImagePart, Message, TextPart, ToolCall, ToolSpec, assistant, system, user

SEARCH = ToolSpec(
    "search_docs",
    "Searches the kdocs.",
    {"type": "object", "properties": {"query": {"type": "string", "description": "What to kseek."}}, "required": ["query"]},
)
CLOCK = ToolSpec("read_clock", "Tells the ktime.")
NESTED = ToolSpec(
    "book_trip",
    "Books a ktrip.",
    {
        "type": "object",
        "properties": {
            "stops": {"type": "array", "items": {"type": "string"}},
            "budget": {"type": "object", "properties": {"amount": {"type": "number"}, "firm": {"type": "boolean"}}},
        },
        "required": ["stops"],
    },
)
_SEARCHING = ToolCall("search_docs", '{"query": "kcall1"}', "abcdefgh1")
_SEARCHING_MORE = ToolCall("search_docs", '{"query": "kcall2"}', "abcdefgh2")
_READING = ToolCall("read_clock", "{}", "abcdefgh3")
_BOOKING = ToolCall("book_trip", '{"stops": ["kstop1", "kstop2"], "budget": {"amount": 12.5, "firm": true}}', "abcdefgh4")


def _result(call: ToolCall, text: str) -> Message:
    return Message("tool", text, tool_call_id=call.id, name=call.name)


@dataclass(frozen=True)
class Scenario:
    """A conversation, the tools offered, and the words that must come out."""

    name: str
    messages: Sequence[Message]
    words: str
    tools: Sequence[ToolSpec] = ()


SCENARIOS = (
    Scenario("one question", [user("kone")], "kone"),
    Scenario("a system message", [system("ksys"), user("kone")], "ksys kone"),
    Scenario(
        "several turns",
        [system("ksys"), user("kone"), assistant("ktwo"), user("kthree"), assistant("kfour"), user("kfive")],
        "ksys kone ktwo kthree kfour kfive",
    ),
    Scenario("tools offered", [user("kone")], "kone search_docs kseek read_clock", [SEARCH, CLOCK]),
    Scenario("tools and a system message", [system("ksys"), user("kone")], "ksys kone search_docs kdocs", [SEARCH]),
    Scenario(
        "a call and its result",
        [user("kone"), assistant(tool_calls=(_SEARCHING,)), _result(_SEARCHING, "kres")],
        "kone kcall1 kres",
        [SEARCH],
    ),
    Scenario(
        "text before a call",
        [
            user("kone"),
            assistant("ksaid", tool_calls=(_SEARCHING,)),
            _result(_SEARCHING, "kres"),
            assistant("kans"),
            user("kmore"),
        ],
        "kone ksaid kcall1 kres kans kmore",
        [SEARCH],
    ),
    Scenario(
        "two calls at once",
        [
            user("kone"),
            assistant(tool_calls=(_SEARCHING, _SEARCHING_MORE)),
            _result(_SEARCHING, "kres1"),
            _result(_SEARCHING_MORE, "kres2"),
            assistant("kans"),
            user("kmore"),
        ],
        "kone kcall1 kcall2 kres1 kres2 kans kmore",
        [SEARCH],
    ),
    Scenario(
        "two rounds of calls",
        [
            user("kone"),
            assistant(tool_calls=(_SEARCHING,)),
            _result(_SEARCHING, "kres1"),
            assistant(tool_calls=(_SEARCHING_MORE,)),
            _result(_SEARCHING_MORE, "kres2"),
            assistant("kans"),
        ],
        "kone kcall1 kres1 kcall2 kres2 kans",
        [SEARCH],
    ),
    Scenario(
        "a call without arguments",
        [user("kone"), assistant(tool_calls=(_READING,)), _result(_READING, "knoon")],
        "kone read_clock knoon",
        [CLOCK],
    ),
    Scenario(
        "nested arguments",
        [user("kone"), assistant(tool_calls=(_BOOKING,)), _result(_BOOKING, "kbooked"), assistant("kans")],
        "kone kstop1 kstop2 12.5 kbooked kans",
        [NESTED],
    ),
    Scenario(
        "typed parts",
        [user("kone"), assistant("ktwo"), Message("user", (TextPart("kpart1 "), ImagePart("x", "kpic"), TextPart("kpart2")))],
        "kone ktwo kpart1 kpic kpart2",
    ),
    Scenario(
        "a later system message",
        [user("kone"), assistant("ktwo"), system("klate"), user("kthree")],
        "kone ktwo klate kthree",
    ),
    Scenario(
        "neighbours of one role",
        [user("kone"), user("ktwo"), assistant("kthree"), assistant("kfour"), user("kfive")],
        "kone ktwo kthree kfour kfive",
    ),
    Scenario(
        "odd text",
        [
            system('k{{"sys"}} {% raw %}'),
            user("k<b>\"quoted\"</b> & 'k2'\n\n  kindent\tktab"),
            assistant("kÜñí😀"),
            user("\\k"),
        ],
        'k{{"sys"}} k<b>"quoted"</b> & kindent kÜñí😀 \\k',
    ),
)
