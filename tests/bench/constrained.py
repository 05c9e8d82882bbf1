"""A constrained call against free text: tokens per second, same model, same length.

    python -m tests.bench.constrained [MODEL] [PAIRS]

The grammar is the one that holds a message to a call of a tool whose argument is a list of records. Tokens that it forces count
like others, because a reader waits for them like for others; how many there were, and how many needed a mask, is printed beside
the ratio.
"""

from __future__ import annotations

from contextlib import closing

from llm_magics.chat.constraint import build_constraint
from llm_magics.chat.encodings.syntax import ToolSyntax
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, Finished, GenerateRequest, Guide, SamplerSettings
from llm_magics.messages import ToolSpec
from tests.engine.guides import FromStart

from .common import arguments, compare, config, report

N_TOKENS = 96
RIVER = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "country": {"type": "string"}, "length_km": {"type": "integer"}},
    "required": ["name", "country", "length_km"],
    "additionalProperties": False,
}
RIVERS = {"type": "object", "properties": {"rivers": {"type": "array", "items": RIVER, "minItems": 20}}, "required": ["rivers"]}
TOOL = ToolSpec("record", "Record rivers.", RIVERS)
SYNTAX = ToolSyntax(call_start="<tool_call>\n", call_end="\n</tool_call>")
GRAMMAR = build_constraint(SYNTAX, [TOOL], tool_choice="required").start
QUESTION = "<|im_start|>user\nRecord twenty rivers: name, country, length_km.<|im_end|>\n<|im_start|>assistant\n"


def generate(engine: Engine, guide: Guide | None) -> Finished:
    """One greedy generation of ``N_TOKENS``, end tokens banned where nothing else bounds it."""
    prompt = engine.tokenize(QUESTION, special=True)
    ban = () if guide else tuple((token, float("-inf")) for token in engine.info.eog)
    settings = SamplerSettings(temperature=0, logit_bias=ban)
    with closing(engine.submit(GenerateRequest(prompt, settings, max_tokens=N_TOKENS, guide=guide))) as generation:
        *_, end = generation
    assert isinstance(end, Finished)
    return end


def speed(end: Finished) -> float:
    """Tokens per second after the first."""
    return (len(end.ids) - 1) / end.decode_seconds


def main() -> None:
    path, pairs = arguments()
    with closing(open_engine(config(path, 1024))) as engine:
        seen = generate(engine, FromStart(grammar=GRAMMAR))
        print(f"of {len(seen.ids)} constrained tokens {seen.forced} were forced and {seen.masked} needed a mask")
        report(
            compare(
                "constrained_vs_free",
                "tokens/s",
                lambda: speed(generate(engine, FromStart(grammar=GRAMMAR))),
                "the same engine, free",
                lambda: speed(generate(engine, None)),
                pairs=pairs,
            )
        )


if __name__ == "__main__":
    main()
