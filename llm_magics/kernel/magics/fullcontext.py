"""What somebody can do whose cell does not fit into the model's context, in the words of the magics."""

from __future__ import annotations

from llm_magics.errors import ContextFullError


def with_ways_out(error: ContextFullError, talked_before: bool, tools: bool) -> ContextFullError:
    """The same error with the next step of this cell's author: what helps depends on what the prompt holds beside the cell."""
    shorter = f"Shorten the cell, show it less with --context{', offer fewer tools with --tools' if tools else ''}"
    if talked_before:
        advice = (
            "The cell did not join the conversation. Begin anew with %thread reset, ask aside with --no-history or in a new "
            "--thread NAME, or load the model with a larger --ctx, or with --context-shift to drop the oldest turns. "
            f"Or: {shorter[0].lower()}{shorter[1:]}."
        )
    else:
        advice = f"{shorter}, or load the model with a larger --ctx."
    return ContextFullError(error.what, advice, n_prompt=error.n_prompt, n_ctx=error.n_ctx)
