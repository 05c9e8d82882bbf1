"""JSON within the smallest limits with a real vocabulary, whose tokens are many bytes long and are forced in runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_magics.chat.constraint import build_constraint
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import (
    Engine,
    EngineConfig,
    Finished,
    GenerateRequest,
    Grammar,
    GuideStep,
    JsonText,
    SamplerSettings,
)
from llm_magics.errors import SchemaError
from llm_magics.schema.validate import validate

from .guides import Recorder
from .test_closing import SCHEMAS

pytestmark = pytest.mark.model


@dataclass
class UnderSchema(Recorder):
    """Arms the grammar of an answer under a schema, as the model layer does."""

    schema: Any = None

    def start(self) -> GuideStep:
        constraint = build_constraint(None, (), response_schema=self.schema)
        assert constraint.json is not None
        return GuideStep(arm=Grammar(constraint.start, json=JsonText(constraint.json.required, values=constraint.json.values)))


@pytest.fixture(scope="module")
def engine(smollm: Path) -> Iterator[Engine]:
    with closing(open_engine(EngineConfig(str(smollm), n_ctx=512))) as opened:
        yield opened


def answer(engine: Engine, schema: Any, limit: int, seed: int) -> Finished:
    wild = SamplerSettings(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
    request = GenerateRequest(engine.tokenize("A list:", special=False), wild, limit, guide=UnderSchema(schema=schema))
    with closing(engine.submit(request)) as generation:
        *_, end = generation
    assert isinstance(end, Finished)
    return end


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_a_model_draws_its_json_is_valid_within_the_smallest_limits(name: str, engine: Engine) -> None:
    schema = SCHEMAS[name]
    least = 1
    try:
        answer(engine, schema, 0, 0)
    except SchemaError as refused:
        found = re.search(r"about ([\d,]+) tokens; 0 are allowed", str(refused))
        assert found is not None
        least = int(found[1])
    for seed, more in enumerate((0, 1, 6, 40)):
        end = answer(engine, schema, least + more, seed)
        assert not validate(json.loads(end.text), schema)
        assert len(end.ids) <= least + more
        assert end.reason == "stop"
