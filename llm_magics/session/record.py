"""What a saved turn says of how it came about: hashes of what the model was asked, and with ``--record`` what a replay needs.

**Hashes.** A HASH is the SHA-256, in hex, of a value's canonical JSON (:mod:`llm_magics.canonical`). Messages and tools are
hashed in OpenAI's form (:mod:`llm_magics.wire`), a text as a JSON string.

**Always saved**, as ``record`` of each step::

    {"model": {"name": "...", "file": "name of the file", "sha256": "of the file", "size": 0, "settings": {...}},
     "template_sha256": "of the template's source", "template_kwargs": {...}, "sampling": {..., "seed": 7},
     "max_tokens": null, "stop": [], "tool_choice": "auto", "thinking": null,
     "request": {"earlier": 4, "messages": HASH, "system": HASH, "tools": HASH, "settings": HASH}}

``earlier`` counts the conversation's messages in front of the turn. ``messages`` is the hash of the turn's own messages that
the step was sent, ``settings`` that of all else in the request. Each turn hashes its own messages alone: a hash over the whole
conversation would let a secret that an earlier turn masks be guessed.

**Saved with** ``--record``: the ids that each step generated (``token_ids``), and its ``recording``::

    {"text": "the answer as the model wrote it, markers included",
     "prompt": "text that the prompt adds", "prompt_token_ids": [...], "prompt_kept": 120, "prompt_after": "TURN/STEP",
     "prompt_hash": HASH, "tools": {"weather": HASH}, "response_schema": HASH, "schemas": {HASH: {...}}}

A prompt is saved as what it adds. The whole prompt is the first ``prompt_kept`` ids of the *sequence* of the recorded step
before it (its prompt and what it generated), which ``prompt_after`` names, and then ``prompt_token_ids``, whose text is
``prompt``. ``prompt_hash`` is the hash of that text. ``schemas`` holds a
tool's description, or the schema of the answer, in the first recorded turn that uses it; later turns name its hash alone.
What looks like a secret is masked in all of these, and with a masked text its token ids and hashes are left out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from llm_magics.canonical import hash_of
from llm_magics.events import ModelEnd
from llm_magics.models.base import Request, Sampling
from llm_magics.transcript import Transcript
from llm_magics.wire import messages_to_openai, tools_to_openai

_SETTINGS = (
    "tool_choice", "parallel_tool_calls", "response_schema", "max_tokens", "stop", "logprobs", "thinking", "template_kwargs",
    "continue_final",
)  # fmt: skip


def request_hashes(request: Request, earlier: int) -> dict[str, Any]:
    """The hashes of one step's request, of whose messages (the system prompt aside) ``earlier`` stand in front of the turn."""
    opening = [message for message in request.messages[:1] if message.role == "system"]
    settings = {name: getattr(request, name) for name in _SETTINGS}
    sampling = {f.name: value for f in fields(Sampling) if (value := getattr(request.sampling, f.name)) not in (None, ())}
    return {
        "earlier": earlier,
        "messages": hash_of(messages_to_openai(request.messages[len(opening) + earlier :])),
        "system": hash_of(opening[0].text if opening else ""),
        "tools": hash_of(tools_to_openai(request.tools)),
        "settings": hash_of({**settings, "sampling": sampling}),
    }


class SchemaBook:
    """Which recorded turn of a notebook holds which schema. Threads may share one."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._lock = threading.Lock()

    def claim(self, turn: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
        """Give those of ``schemas``, by hash, that no turn holds yet; ``turn`` holds them from now on."""
        with self._lock:
            new = {key: schema for key, schema in schemas.items() if key not in self._holders}
            self._holders |= dict.fromkeys(new, turn)
            return new

    def release(self, turns: Iterable[str]) -> None:
        """Forget turns that are not saved any more: whoever uses their schemas next holds them."""
        gone = set(turns)
        with self._lock:
            self._holders = {key: turn for key, turn in self._holders.items() if turn not in gone}


def schemas_in(trace: Transcript) -> dict[str, Any]:
    """The schemas that a recorded turn holds, by their hashes."""
    held = (step.recording.get("schemas") for step in trace.steps)
    return {str(key): schema for schemas in held if isinstance(schemas, Mapping) for key, schema in schemas.items()}


@dataclass(slots=True)
class Recorder:
    """Completes the record of one turn's steps. ``schemas`` is None where the turn is not recorded.

    ``sequence`` is what the recorded step before has in the model's context, and ``after`` that step's name.
    """

    turn: str = ""
    earlier: int = 0
    schemas: SchemaBook | None = None
    sequence: list[int] = field(default_factory=list)
    after: str = ""

    @classmethod
    def of(cls, turn: str, traces: Iterable[Transcript], earlier: int, schemas: SchemaBook | None) -> Recorder:
        """The recorder of a turn that stands behind the turns of ``traces``."""
        return cls(turn, earlier, schemas, *(sequence_of(traces) if schemas is not None else ([], "")))

    def asking(self, request: Request) -> Request:
        """The request, with what the model need not record again."""
        return request if self.schemas is None else replace(request, known=tuple(self.sequence))

    def completed(self, end: ModelEnd, request: Request, step: int) -> ModelEnd:
        """The end of a step with its hashes, and with its recording where the turn is recorded."""
        record = {**end.record, "request": request_hashes(request, self.earlier)}
        if self.schemas is None:
            return replace(end, record=record)
        tools = {spec["function"]["name"]: (hash_of(spec), spec) for spec in tools_to_openai(request.tools)}
        schemas = dict(tools.values())
        recording = {**end.recording, "prompt_after": self.after, "tools": {name: key for name, (key, _) in tools.items()}}
        if request.response_schema is not None:
            recording["response_schema"] = hash_of(request.response_schema)
            schemas[recording["response_schema"]] = dict(request.response_schema)
        recording["schemas"] = self.schemas.claim(self.turn, schemas)
        if "prompt_token_ids" in recording:
            self.sequence[recording["prompt_kept"] :] = (*recording["prompt_token_ids"], *end.message.token_ids)
            self.after = f"{self.turn}/{step}"
        return replace(end, record=record, recording=recording)


def sequence_of(traces: Iterable[Transcript]) -> tuple[list[int], str]:
    """The ids that the last recorded step of a conversation has in the model's context, and its name.

    Both are empty where nothing is recorded, or where a part of it is missing, e.g. because it was masked.
    """
    ids: list[int] = []
    name = ""
    for trace in traces:
        for number, step in enumerate(trace.steps):
            if "prompt_kept" not in step.recording:
                continue
            added = _added(step.recording, len(ids), name)
            if added is None:
                ids, name = [], ""
                continue
            ids[step.recording["prompt_kept"] :] = (*added, *step.token_ids)
            name = f"{trace.turn}/{number}"
    return ids, name


def _added(recording: Mapping[str, Any], n_known: int, name: str) -> list[int] | None:
    """What a step's prompt adds to what is known; None where it does not say, or begins with something else."""
    kept, added = recording["prompt_kept"], recording.get("prompt_token_ids")
    if type(kept) is not int or not isinstance(added, (list, tuple)) or not all(type(item) is int for item in added):
        return None
    return list(added) if kept == 0 or (recording.get("prompt_after") == name and 0 < kept <= n_known) else None
