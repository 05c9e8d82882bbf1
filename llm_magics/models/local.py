"""A GGUF model on this machine: messages in, ModelEvents out, tokens in between.

One step: the chat format renders the messages; ``tokens`` turns the text into ids and keeps the ids of earlier answers; the
engine's thread evaluates the uncached ones and samples. A guide beside the sampler parses the text as it comes and arms
grammars; its events come back through the engine's queue.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from llm_magics.canonical import hash_of
from llm_magics.chat.format import ChatFormat
from llm_magics.chat.recovery.course import Course
from llm_magics.chat.recovery.trial import MOST_TOKENS, next_trial
from llm_magics.engine.prefix import common_prefix
from llm_magics.engine.values import Engine, Finished, GenerateRequest, Generation, SamplerSettings
from llm_magics.errors import ContextFullError, EngineDiedError
from llm_magics.events import ModelEnd, ModelEvent, Usage
from llm_magics.messages import Message
from llm_magics.tools.runaway import CallLimit

from .answer import Answer, why_ended
from .base import Mappable, PromptPart, Request, Sampling
from .guide import ChatGuide, make_guide, make_trial
from .meter import Meter, Metered
from .shift import ContextShift, Fitted
from .tokens import Rendered, TokenMemory, control_pattern, split

_REMEMBERED_TURNS = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies the model of a turn. ``file`` is a name without folders, which belong to the machine."""

    file: str
    sha256: str | None = None
    size: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


class LocalModel(Mappable):
    """A loaded model, made by :func:`llm_magics.load_model`. Owns its engine, and frees it on ``close``.

    ``sampling`` is for a request's settings that are ``None``; ``template_kwargs`` are template variables for every request.
    ``context_shift`` leaves the oldest turns out if a conversation outgrows the context, and says so; without it, a prompt that
    does not fit is refused, and an answer ends with the context.
    """

    def __init__(
        self, name: str, engine: Engine, format: ChatFormat, *, identity: Identity | None = None,
        sampling: Sampling | None = None, template_kwargs: Mapping[str, Any] | None = None, context_shift: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.engine = engine
        self.format = format
        self.identity = identity or Identity(PurePath(engine.info.path).name)
        self.sampling = sampling or Sampling()
        self.template_kwargs = dict(template_kwargs or {})
        self.template_sha256 = hashlib.sha256(format.template.source.encode()).hexdigest()
        self._controls = dict(engine.info.control_tokens)
        self._pattern = control_pattern(self._controls)
        self._memory = TokenMemory(lambda text, special: engine.tokenize(text, special=special), engine.pieces)
        self._shift = ContextShift(engine.info.n_ctx, self._render, engine.pieces) if context_shift else None
        self._last: OrderedDict[str, tuple[Rendered, tuple[int, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<LocalModel {self.name!r}: {self.engine.info.description}, context {self.context_size:,}>"

    @property
    def context_size(self) -> int:
        return self.engine.info.n_ctx

    @property
    def parallel(self) -> int:
        return self.engine.info.n_slots

    @property
    def own_process(self) -> int:
        """The id of the process that the model has for itself; 0 if it runs in this one."""
        return self.engine.info.pid if self.engine.info.pid != os.getpid() else 0

    def close(self) -> None:
        """End running requests, then free the weights and the cache."""
        self.engine.close()

    def preview(self, request: Request) -> tuple[PromptPart, ...]:
        """The prompt in runs of one origin. Each run is tokenized alone; at a seam, the whole prompt's ids may differ."""
        rendered = self._render(self._shift.shorten(request)[0] if self._shift else request)
        runs = []
        for origin, text in rendered.prompt.parts:
            special = origin == "template" or not (self._pattern and self._pattern.search(text))
            runs.append(PromptPart(origin, text, self.engine.tokenize(text, special=special)))
        return tuple(runs)

    def count_tokens(self, request: Request) -> int:
        return len(self._render(request).ids)

    def room(self, request: Request) -> int:
        """How many tokens the context leaves for the answer once the droppable turns are dropped; negative if none."""
        fitted = self._shift.fit(request) if self._shift else Fitted(request, self._render(request))
        dropped = sum(end - start for start, end in fitted.droppable)
        return self.context_size - len(fitted.rendered.ids) + dropped

    def stream(self, request: Request) -> Iterator[ModelEvent]:
        """Answer one request. Raises TemplateError, SchemaError, ContextFullError before anything is evaluated."""
        return Metered(lambda meter: self._stream(request, meter), Meter(self.context_size))

    def _stream(self, request: Request, meter: Meter) -> Generator[ModelEvent, None, None]:
        fitted = self._shift.fit(request) if self._shift else Fitted(request, self._render(request))
        rendered = fitted.rendered
        sampler = self._sampler(request.sampling)
        answer = Answer()
        guide = make_guide(self.format, rendered.prompt, request, frozenset(self._controls))
        generation = self._submit(request, fitted, sampler, rendered.ids, guide, request.max_tokens)
        meter.prompt = len(rendered.ids)
        losses = self._losses(fitted.request, rendered)
        try:
            yield from answer.follow(generation, meter)
            if (done := answer.finished) is None:
                return
            fitted = fitted.after(done.dropped)
            if self._shift is not None:
                self._shift.remember(request, fitted.left_out)
            if not done.dropped:
                yield from self._try_further(request, fitted, sampler, answer, meter)
            yield replace(
                self._end(answer, losses, fitted.left_out),
                stopped=answer.end.stopped or why_ended(done, request),
                record=self._record(request, sampler, done),
                recording=self._recording(request, fitted.rendered, answer),
            )
        except EngineDiedError:
            answer.ids = []  # to ask for their pieces would load the model again at once
            raise
        finally:
            self._remember(fitted.request, fitted.rendered, tuple(answer.ids))

    def _try_further(
        self, request: Request, fitted: Fitted, sampler: SamplerSettings, answer: Answer, meter: Meter
    ) -> Generator[ModelEvent, None, None]:
        """Try further calls behind the answer, one by one, until one comes to nothing; give those that count."""
        if request.tool_choice != "auto" or request.response_schema is not None or not request.tools:
            return
        course, most = Course.of(request.messages, request.answered), (request.call_limit or CallLimit()).recovered
        while len(answer.calls) < (most if request.parallel_tool_calls else 1):
            left = MOST_TOKENS if request.max_tokens is None else min(request.max_tokens - answer.n_written, MOST_TOKENS)
            trial = next_trial(answer.end, answer.text, answer.ids, request.tools, course)
            guide = make_trial(self.format, fitted.rendered.prompt, request, trial) if trial is not None and left > 0 else None
            if trial is None or guide is None:
                return
            lead = ("\n" if trial.ids else "") + trial.lead
            ids, further = [*trial.ids, *self.engine.tokenize(lead, special=False)], Answer()
            with suppress(ContextFullError):
                generation = self._submit(request, fitted, sampler, (*fitted.rendered.ids, *ids), guide, left)
                yield from further.follow(generation, meter, trial=True)
            answer.add(further, ids, lead)
            if not further.calls:
                return

    def _submit(
        self, request: Request, fitted: Fitted, sampler: SamplerSettings, ids: tuple[int, ...], guide: ChatGuide,
        max_tokens: int | None,
    ) -> Generation:  # fmt: skip
        """Hand a rendered request to the engine, with the guide that reads its answer."""
        return self.engine.submit(
            GenerateRequest(
                ids, sampler, max_tokens, request.stop, request.logprobs, guide, request.conversation,
                request.priority, fitted.droppable, request.soft_limit,
            )
        )  # fmt: skip

    def _render(self, request: Request) -> Rendered:
        kwargs = {**self.template_kwargs, **request.template_kwargs}
        tools = request.tools if request.tool_choice != "none" else ()
        prompt = self.format.render(
            request.messages, tools=tools, enable_thinking=request.thinking, continue_final=request.continue_final,
            now=request.now, **kwargs,
        )  # fmt: skip
        pieces = split(prompt.text, [(s.start, s.end) for s in prompt.spans], self._pattern)
        ids = self._memory.ids(pieces)
        info = self.engine.info
        if info.adds_bos and info.bos >= 0 and ids[:1] != (info.bos,):
            ids = (info.bos, *ids)
        return Rendered(prompt, pieces, ids)

    def _sampler(self, asked: Sampling) -> SamplerSettings:
        """The request's settings, else the model's own, else the engine's."""
        chosen: dict[str, Any] = {}
        for layer in (self.sampling, asked):
            given = {name: getattr(layer, name) for name in Sampling.__slots__}
            chosen |= {name: value for name, value in given.items() if value is not None and value != ()}
        return replace(SamplerSettings(), **chosen)

    def _end(self, answer: Answer, losses: tuple[str, ...], left_out: int) -> ModelEnd:
        """The step's end: the fold of its events, with the sampled ids."""
        done, end = answer.done, answer.end
        usage = Usage(
            done.n_prompt, done.n_cached, done.n_evaluated, answer.n_written,
            prompt_seconds=done.prompt_seconds, completion_seconds=done.decode_seconds + answer.seconds,
            time_to_first_token=done.time_to_first_token,
            context_used=min(done.n_past, done.n_ctx),  # the last token may not be evaluated
            context_size=done.n_ctx, losses=losses + done.losses, drafted_tokens=done.drafted, accepted_tokens=done.accepted,
            left_out_turns=left_out,
        )  # fmt: skip
        return replace(end, message=replace(end.message, token_ids=tuple(answer.ids)), usage=usage)

    def _record(self, request: Request, sampler: SamplerSettings, done: Finished) -> dict[str, Any]:
        """All that the answer depends on beside the conversation, as JSON."""
        return {
            "model": {"name": self.name, **asdict(self.identity)},
            "template_sha256": self.template_sha256,
            "template_kwargs": {**self.template_kwargs, **request.template_kwargs},
            "sampling": {name: getattr(sampler, name) for name in SamplerSettings.__slots__} | {"seed": done.seed},
            "max_tokens": request.max_tokens, "stop": list(request.stop), "tool_choice": request.tool_choice,
            "thinking": request.thinking,
        }  # fmt: skip

    def _recording(self, request: Request, rendered: Rendered, answer: Answer) -> dict[str, Any]:
        """The answer's raw text; if the turn is recorded, also what the prompt adds to the known ids."""
        recording: dict[str, Any] = {"text": answer.text}
        if found := answer.logprobs:
            recording["logprobs"] = [{"id": p.token, "logprob": p.logprob, "top": [list(t) for t in p.top]} for p in found]
        if request.known is None:
            return recording
        kept = common_prefix(list(request.known), list(rendered.ids))
        added = list(rendered.ids[kept:])
        text = b"".join(self.engine.pieces(added)).decode(errors="replace")
        return {**recording, "prompt": text, "prompt_token_ids": added, "prompt_kept": kept, "prompt_hash": hash_of(text)}

    def _losses(self, request: Request, rendered: Rendered) -> tuple[str, ...]:
        """Why this prompt does not begin with the conversation's last prompt and answer, if by its messages it should."""
        last = self._last.get(request.conversation)
        answers = [m for m in request.messages if m.role == "assistant"]
        if last is None or not answers:
            return ()
        before, generated = last
        if answers[-1].token_ids != generated or self._memory.continues(rendered.pieces, before.pieces, generated):
            return ()
        return (_reason_of_loss(answers[-1], rendered.prompt.text),)

    def _remember(self, request: Request, rendered: Rendered, generated: tuple[int, ...]) -> None:
        if request.priority > 0 and not request.conversation:
            return  # a row of a batch: nothing continues it, and hundreds of rows would displace conversations
        self._memory.remember(rendered.pieces, rendered.ids, generated)
        with self._lock:
            self._last.pop(request.conversation, None)
            self._last[request.conversation] = (rendered, generated)
            while len(self._last) > _REMEMBERED_TURNS:
                self._last.popitem(last=False)


def _reason_of_loss(answer: Message, prompt: str) -> str:
    if any(call.recovered for call in answer.tool_calls):
        return "a recovered call is rendered in the template's own syntax"
    if answer.reasoning.strip() and answer.reasoning.strip() not in prompt:
        return "the template drops earlier reasoning"
    return "the template writes the last answer differently from how it was generated"
