"""The provenance of a saved turn: hashes of what the model was asked, and with ``--record`` what a replay needs.

A HASH is the SHA-256, in hex, of a value's canonical JSON (:mod:`llm_magics.canonical`). Messages and tools are hashed in
OpenAI's form (:mod:`llm_magics.wire`), a text as a JSON string.

**Always saved**, as ``record`` of each step::

    {"model": {"name": "...", "file": "name of the file", "sha256": "of the file", "size": 0, "settings": {...}},
     "template_sha256": "of the template's source", "template_kwargs": {...}, "sampling": {..., "seed": 7},
     "max_tokens": null, "stop": [], "tool_choice": "auto", "thinking": null,
     "request": {"earlier": 4, "messages": HASH, "system": HASH, "tools": HASH, "settings": HASH}}

``earlier`` counts the conversation's messages before the turn. ``messages`` hashes the turn's own messages that the step was
sent, ``settings`` the rest of the request. Earlier messages are not hashed: a hash over the whole conversation would help to
guess a secret that is masked in an earlier turn.

**Saved with** ``--record``: each step's generated ``token_ids``, and its ``recording``::

    {"text": "the answer as the model wrote it, markers included",
     "prompt": "text that the prompt adds", "prompt_token_ids": [...], "prompt_kept": 120, "prompt_after": "TURN/STEP",
     "prompt_hash": HASH, "tools": {"weather": HASH}, "response_schema": HASH, "schemas": {HASH: {...}}}

The whole prompt is the first ``prompt_kept`` ids of the *sequence* (prompt and generated ids) of the recorded step that
``prompt_after`` names, followed by ``prompt_token_ids``. ``prompt`` is the text of those, ``prompt_hash`` the text's hash.
``schemas`` holds a tool's description, or the answer's schema, in the first recorded turn that uses it; later turns hold the
hash alone. Whatever looks like a secret is masked, and the token ids and hashes of a masked text are left out.
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
    """The hashes of one step's request; ``earlier`` of its messages (not counting the system prompt) are from earlier turns."""
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
    """Which recorded turn of a notebook holds which schema. Thread-safe."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._lock = threading.Lock()

    def claim(self, turn: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
        """Return the schemas, by hash, that no turn holds yet; from now on ``turn`` holds them."""
        with self._lock:
            new = {key: schema for key, schema in schemas.items() if key not in self._holders}
            self._holders |= dict.fromkeys(new, turn)
            return new

    def release(self, turns: Iterable[str]) -> None:
        """Forget turns that are no longer saved: the next turn that uses their schemas will hold them."""
        gone = set(turns)
        with self._lock:
            self._holders = {key: turn for key, turn in self._holders.items() if turn not in gone}


def schemas_in(trace: Transcript) -> dict[str, Any]:
    """The schemas that a recorded turn holds, by hash."""
    held = (step.recording.get("schemas") for step in trace.steps)
    return {str(key): schema for schemas in held if isinstance(schemas, Mapping) for key, schema in schemas.items()}


@dataclass(slots=True)
class Recorder:
    """Completes the record of one turn's steps. ``schemas`` is None if the turn is not recorded.

    ``sequence`` are the ids of the last recorded step's prompt and answer; ``after`` is that step's name.
    """

    turn: str = ""
    earlier: int = 0
    schemas: SchemaBook | None = None
    sequence: list[int] = field(default_factory=list)
    after: str = ""

    @classmethod
    def of(cls, turn: str, traces: Iterable[Transcript], earlier: int, schemas: SchemaBook | None) -> Recorder:
        """The recorder of the turn that follows ``traces``."""
        return cls(turn, earlier, schemas, *(sequence_of(traces) if schemas is not None else ([], "")))

    def asking(self, request: Request) -> Request:
        """The request, with the ids that the model need not record again."""
        return request if self.schemas is None else replace(request, known=tuple(self.sequence))

    def completed(self, end: ModelEnd, request: Request, step: int) -> ModelEnd:
        """The end of a step with its hashes and, if the turn is recorded, its recording."""
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
    """The ids of the prompt and answer of a conversation's last recorded step, and the step's name.

    Both are empty if no step is recorded or a part is missing, e.g. masked.
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
            else:
                ids[step.recording["prompt_kept"] :] = (*added, *step.token_ids)
                name = f"{trace.turn}/{number}"
    return ids, name


def _added(recording: Mapping[str, Any], n_known: int, name: str) -> list[int] | None:
    """The ids that a step's prompt adds to the known ones; None if they are missing or follow another sequence."""
    kept, added = recording["prompt_kept"], recording.get("prompt_token_ids")
    if type(kept) is not int or not isinstance(added, (list, tuple)) or not all(type(item) is int for item in added):
        return None
    return list(added) if kept == 0 or (recording.get("prompt_after") == name and 0 < kept <= n_known) else None
