"""The chat templates that the tests of this room run over: eight of our own, and the corpus where there is one.

The corpus is looked for in the directory that ``LLM_MAGICS_CORPUS`` names, else in ``../shared/corpus`` beside the checkout; a
second one, and a directory of templates alone, beside it, unless ``LLM_MAGICS_CORPUS2`` and ``LLM_MAGICS_WILD`` name them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from llm_magics.chat.format import ChatFormat

OWN = Path(__file__).parent / "templates"
CASES = Path(__file__).parent / "cases.jsonl"
_BESIDE = Path(__file__).parents[2].parent / "shared" / "corpus"
CORPUS = Path(os.environ.get("LLM_MAGICS_CORPUS") or _BESIDE)
CORPUS2 = Path(os.environ.get("LLM_MAGICS_CORPUS2") or CORPUS.parent / "corpus2")
WILD = Path(os.environ.get("LLM_MAGICS_WILD") or CORPUS.parent / "wild")
HAS_CORPUS = (CORPUS / "cases.jsonl").is_file()

TEMPLATES = sorted(OWN.glob("*.jinja")) + (sorted((CORPUS / "templates").glob("*.jinja")) if HAS_CORPUS else [])
NAMES = [path.stem for path in TEMPLATES]


@cache
def format_of(path: Path) -> ChatFormat:
    """The analysed template."""
    return ChatFormat.from_template(path.read_text(encoding="utf-8"), "<s>", "</s>")


def corpus_format(stem: str) -> ChatFormat:
    """A template of the corpus by the beginning of its name."""
    return format_of(next(p for p in TEMPLATES if p.stem.startswith(stem)))
