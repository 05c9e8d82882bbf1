"""One request in the engine: its tokens, text, guide and grammar, and the events for its consumer.

The scheduler decides when a sequence is evaluated; the sequence decides what each new token means.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterable
from queue import SimpleQueue

from llm_magics.engine.closing import SOFT_LIMIT, Allowed
from llm_magics.engine.guess.speculation import Guesses
from llm_magics.engine.native.chains import DeviceChain
from llm_magics.engine.native.constraint import Constraint, ConstraintEngine
from llm_magics.engine.native.context import Context
from llm_magics.engine.native.model import Model
from llm_magics.engine.native.sampling import Row, Sampler, logprob, logprobs
from llm_magics.engine.values import (
    EngineEvent,
    Finished,
    GenerateRequest,
    GuideStep,
    Prefill,
    ScoringGuide,
    TokenLogprob,
    Tokens,
)
from llm_magics.errors import EngineError, LLMMagicsError

from .compose import Phase

RUN_AHEAD = 512  # events that may wait for a consumer before its sequence pauses


class Channel:
    """Carries events from the engine to one consumer, then one Finished or one exception. In the engine's own process, a
    subclass puts them on the way to another one."""

    __slots__ = ("cancelled", "paused", "queue")

    def __init__(self) -> None:
        self.queue: SimpleQueue[EngineEvent | Exception] = SimpleQueue()
        self.cancelled = False
        self.paused = False

    def put(self, item: EngineEvent | Exception) -> None:
        self.queue.put(item)

    def waiting(self) -> int:
        """How many events the consumer has not taken yet."""
        return self.queue.qsize()

    def may_run(self) -> bool:
        """Whether the consumer keeps up. If not, the sequence is paused until :meth:`caught_up`."""
        if self.waiting() < RUN_AHEAD:
            return True
        self.paused = True
        return self.waiting() < RUN_AHEAD  # the consumer may have caught up before it could see the flag

    def caught_up(self) -> bool:
        """Say once, in the consumer's thread, that a paused sequence may continue."""
        if self.paused and self.waiting() < RUN_AHEAD // 2:
            self.paused = False
            return True
        return False


class Sequence:
    """One request. Only the engine's thread uses it once it is submitted."""

    def __init__(
        self, request: GenerateRequest, model: Model, constraints: ConstraintEngine, n_ctx: int, device_sampling: bool = False,
        channel: Channel | None = None,
    ) -> None:  # fmt: skip
        self.request = request
        self.channel = channel or Channel()
        self.tokens = list(request.prompt)
        self.n_prompt = len(request.prompt)
        self.n_dropped = 0  # droppable ranges that were dropped
        self.n_cached = 0
        self.losses: list[str] = []
        self.reason = ""
        self.guesses = Guesses(model.n_vocab, self.losses)
        self.phase = Phase.WAITING
        self.rank = (request.priority, 0)  # the scheduler sets the order of arrival
        self.parking = f"sequence {id(self)}"  # names its parked state while it is suspended
        self._model = model
        self._constraints = constraints
        self._eog = frozenset(model.eog)
        self._droppable = list(request.droppable)
        self._n_asked = self.n_prompt  # before anything is dropped
        self._n_ctx = n_ctx
        self._on_device = device_sampling and not request.logprobs  # until something needs the logits on the host
        self._sampler = Sampler(request.sampler, model.n_vocab, request.prompt, on_device=self._on_device)
        self._stream = TextStream(request.stop)
        self._constraint: Constraint | None = None
        self._scorer = request.guide if isinstance(request.guide, ScoringGuide) else None
        self._text: list[str] = []
        self._n_masked = self._n_forced = 0
        self._submitted = time.perf_counter()
        self._started = self._first = 0.0
        self._new_ids: list[int] = []  # these four make up the next Tokens event
        self._new_text: list[str] = []
        self._new_events: list[object] = []
        self._new_logprobs: list[TokenLogprob] = []

    def start(self, n_cached: int, n_lost: int) -> None:
        """Begin on a slot: ask the guide, arm its grammar, take the tokens that the grammar forces before the first draw."""
        self.found_cached(n_cached)
        if self._started:
            return
        self._started = time.perf_counter()
        self._n_asked = self.n_prompt
        if n_lost:
            self.losses.append(f"this model's memory cannot be cut back: {n_lost} tokens are evaluated again")
        if self.request.guide is not None:
            self._obey(self.request.guide.start())
        if self.request.max_tokens == 0:
            self.reason = self.reason or "length"
        self._force()

    def found_cached(self, n: int) -> None:
        """Note that the first ``n`` tokens need not be evaluated."""
        self.n_cached = n
        self._tell_progress(n)

    def read(self, n: int) -> None:
        """Note that ``n`` of its tokens are evaluated now."""
        self._tell_progress(min(n, self.n_prompt))
        self.phase = Phase.GENERATING if n >= self.n_prompt else Phase.READING

    def holds(self, n: int) -> None:
        """Note that its slot holds ``n`` of its tokens."""
        if self.phase is Phase.WAITING:
            self.phase = Phase.SEATED
        elif self.phase is not Phase.SEATED:
            self.phase = Phase.GENERATING if n >= self.n_prompt else Phase.READING

    def suspend(self) -> None:
        """Give up the slot. From here on, draw on the host."""
        self.phase = Phase.WAITING if self.phase is Phase.SEATED else Phase.SUSPENDED
        self._on_device = False

    def _tell_progress(self, n: int) -> None:
        """Tell the consumer that ``n`` tokens of the prompt are in the cache, unless it has its first token."""
        if not self._first:
            self.channel.put(Prefill(max(0, n - self.n_cached), self.n_prompt - self.n_cached, self.n_cached))

    @property
    def device_chain(self) -> DeviceChain | None:
        """The chain that may draw the next token on the device; None if the host needs the logits."""
        if self._constraint is not None or self._scoring is not None:
            self._on_device = False
        return self._sampler.device_chain if self._on_device else None

    @property
    def overfull(self) -> bool:
        return len(self.tokens) > self._n_ctx

    def drop(self) -> tuple[int, int]:
        """Forget the oldest droppable ranges, until an eighth of the context is free or none is left; return what was cut."""
        start = end = self._droppable[0][0]
        while self._droppable and len(self.tokens) - (end - start) > self._n_ctx - self._n_ctx // 8:
            end = self._droppable.pop(0)[1]
            self.n_dropped += 1
        del self.tokens[start:end]
        self.n_prompt -= end - start
        self._droppable = [(a - (end - start), b - (end - start)) for a, b in self._droppable]
        self.guesses.forget_places()
        return start, end

    def near_tie(self, context: Context, row: int, distance: float) -> bool:
        """Whether the next token depends on a difference of logits smaller than ``distance``."""
        return self._sampler.near_tie(context, row, distance)

    def draw(self, context: Context, row: int) -> None:
        """Draw the next token from a batch row; take that token and those that the grammar then forces."""
        n = self.request.logprobs
        scoring = self._scoring
        clean = context.logits(row).copy() if n or scoring is not None else None
        token = self._sampler.sample(context, row)
        if self._constraint is not None and not self._constraint.accept(token):
            self._n_masked += 1
            token = self._sampler.sample_again(context, row, self._constraint.allowed())
            if not self._constraint.accept(token):
                raise EngineError(f"The grammar refuses token {token}, which it had allowed.", "Simplify the schema.")
        if self._constraint is not None and (settled := self._constraint.settle(token)) != token:
            token = settled
            self._sampler.force(token)
        if not self._first:
            self._first = time.perf_counter()
        if clean is not None and token not in self._eog:
            if n:
                self._new_logprobs.append(logprobs(clean, token, n))
            if scoring is not None:
                self._score(scoring, clean, token)
        self._take(token)
        self._force()
        self._emit()

    def _score(self, guide: ScoringGuide, logits: Row, token: int) -> None:
        """Tell the guide how likely the drawn token was, and what else could have come if it asks."""
        if not guide.wants_rivals:
            guide.observe(logprob(logits, token))
            return
        found = logprobs(logits, token, guide.wants_rivals)
        rivals = {**dict(found.top), token: found.logprob}
        texts = [(self._model.piece(i).decode("utf-8", "replace"), p) for i, p in rivals.items() if i not in self._eog]
        guide.observe(found.logprob, tuple(texts))

    def finish(self, reason: str = "") -> None:
        """End: release the held text, let the guide finish, send Finished, free C memory."""
        self.reason = reason or self.reason
        guide = self.request.guide
        if rest := self._stream.flush():
            self._new_text.append(rest)
            if guide is not None:
                self._new_events.extend(guide.feed(rest).events)
        self._emit()
        self.channel.put(self._finished(guide.finish(self.reason).events if guide is not None else ()))
        self.free()

    def fail(self, error: Exception) -> None:
        """End with an exception; the consumer gets it as one of this package's errors."""
        if not isinstance(error, LLMMagicsError):
            what = f"The generation failed: {type(error).__name__}: {error}."
            named = EngineError(what, "The model is still loaded; ask again.")
            named.__cause__ = error
            error = named
        self.channel.put(error)
        self.free()

    def free(self) -> None:
        self.phase = Phase.DONE
        self._sampler.free()

    @property
    def _scoring(self) -> ScoringGuide | None:
        """The guide, if it wants the next token's log-probability."""
        return self._scorer if self._scorer is not None and self._scorer.wants_logprob else None

    def _take(self, token: int) -> None:
        if token in self._eog:
            self.reason = "stop"
            return
        self.tokens.append(token)
        self._new_ids.append(token)
        text = self._stream.push(self._model.piece(token))
        if text:
            self._new_text.append(text)
            if self.request.guide is not None:
                self._obey(self.request.guide.feed(text))
        if self._stream.stopped or (self._constraint is not None and self._constraint.finished):
            self.reason = "stop"
        elif not self.reason and self._at_its_limit():
            complete = self._constraint is not None and self._constraint.complete
            self.reason = "stop" if complete else "length"

    def _at_its_limit(self) -> bool:
        limit = self.request.max_tokens
        full = self.overfull and not self._droppable
        return full or (limit is not None and len(self.tokens) - self.n_prompt >= limit)

    def _force(self) -> None:
        """Take the tokens that the grammar forces; one batch evaluates them together with the next token."""
        while self._constraint is not None and not self.reason:
            constraint = self._constraint
            forced = constraint.forced()
            if not forced:
                return
            for token in forced:
                if not constraint.accept(token):
                    raise EngineError(f"The grammar refuses token {token}, which it had forced.", "Simplify the schema.")
                constraint.took(token)
                self._n_forced += 1
                self._sampler.force(token)
                if self.request.logprobs:
                    self._new_logprobs.append(TokenLogprob(token, 0.0))
                self._take(token)
                if self.reason or self._constraint is not constraint:
                    break

    def _obey(self, step: GuideStep) -> None:
        self._new_events.extend(step.events)
        if step.disarm:
            self._constraint = None
        if step.arm is not None:
            self._constraint = self._constraints.arm(step.arm, self._stream.held(), self._allowed())
        if step.stop:
            self.reason = "stop"

    def _allowed(self) -> Allowed:
        """The limits of a JSON text that begins here."""
        room, most = self._n_ctx - len(self.tokens), self.request.max_tokens
        asked = None if most is None else most - (len(self.tokens) - self.n_prompt)
        soft = SOFT_LIMIT if self.request.soft_limit is None else self.request.soft_limit
        return Allowed(room, soft, "context") if asked is None or room < asked else Allowed(asked, soft)

    def _emit(self) -> None:
        if not (self._new_ids or self._new_text or self._new_events):
            return
        text = "".join(self._new_text)
        self._text.append(text)
        new = Tokens(tuple(self._new_ids), text, tuple(self._new_events), tuple(self._new_logprobs))
        self.channel.put(new)
        self._new_ids, self._new_text, self._new_events, self._new_logprobs = [], [], [], []

    def _finished(self, events: tuple[object, ...]) -> Finished:
        now = time.perf_counter()
        started, first = self._started or now, self._first or now
        return Finished(
            reason=self.reason,  # type: ignore[arg-type]  # "stop", "length" or "interrupted" by construction
            ids=tuple(self.tokens[self.n_prompt :]), text="".join(self._text), events=events, seed=self._sampler.seed,
            n_prompt=self._n_asked, n_cached=self.n_cached, n_evaluated=self._n_asked - self.n_cached,
            prompt_seconds=first - started, decode_seconds=now - first,
            time_to_first_token=first - self._submitted if self._first else 0.0,
            n_past=len(self.tokens), n_ctx=self._n_ctx, dropped=self.n_dropped, losses=tuple(self.losses),
            masked=self._n_masked, forced=self._n_forced, drafted=self.guesses.drafted, accepted=self.guesses.accepted,
            hurried=self._constraint.hurried if self._constraint is not None else "",
        )  # fmt: skip


class TextStream:
    """Turns tokens' bytes into text. Holds back the start of a character or stop string; replaces invalid UTF-8 by U+FFFD."""

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Take one token's bytes and return the text that became certain; sets ``stopped`` if a stop string is complete."""
        text = self._decoder.decode(data)
        return self._release(text) if self._stops else text

    def flush(self) -> str:
        """Return the text that is still held back; "" after a stop string."""
        return "" if self.stopped else self._release(self._decoder.decode(b"", True), final=True)

    def held(self) -> bytes:
        """The bytes that are still held back."""
        return self._held.encode() + self._decoder.getstate()[0]

    def _release(self, text: str, *, final: bool = False) -> str:
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if final else max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
