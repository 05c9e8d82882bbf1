"""Eight clients that cancel, interrupt and come back at random: no answer is wrong, no word goes astray, no memory is lost.

    python -m tests.bench.soak [MODEL] [MINUTES]

Each client has a canary word and a conversation in which it occurs, cut at three lengths. What the model answers to each when
nothing else runs is taken down first, with the distance between the two best logits at every token. Then all ask at once, more
clients than slots, so that conversations are parked in memory and on disk and taken back all the time. An answer must be the
one of the quiet engine up to the first place where the two best lie within ``NEAR``: batches of different shapes round
differently. No text may hold another client's canary. Client 0 runs in the main thread and is struck by SIGINT.

Memory is what this process holds of its own (anonymous pages), the median of the last quarter against that of the second.
"""

from __future__ import annotations

import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import psutil

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, SamplerSettings, Tokens
from llm_magics.store.locate import locate

from .common import Result, machine, report

NEAR = 0.5
N_TOKENS = 24
CANARIES = ("albatross", "bandicoot", "chinchilla", "dragonfly", "echidna", "flamingo", "gazelle", "hedgehog")
SHARED = "This is the book of the harbour master. Every page is about one ship, its cargo and its captain.\n"
MIB = 2**20
LATEST = 500.0  # seconds after the time, on a machine that is busy
Enough: TypeAlias = Callable[[Counter[str]], bool]


@dataclass(frozen=True)
class Question:
    """A prompt, and what a quiet engine answers: ids, text, and how far apart the two best logits were."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    gaps: tuple[float, ...]

    @property
    def sure(self) -> int:
        """How many tokens of the answer rounding cannot change."""
        return next((i for i, gap in enumerate(self.gaps) if gap < NEAR), len(self.gaps))


@dataclass
class Outcome:
    """What happened: ``counts`` of requests by how they ended, ``wrong`` and ``leaked`` in words, memory in bytes."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def drift(self) -> float:
        """How much memory grew from the second to the last quarter, as a share."""
        n = len(self.memory) // 4
        return statistics.median(self.memory[-n:]) / statistics.median(self.memory[n : 2 * n]) - 1


class Soak:
    """One run over one engine, for so many seconds, or longer if the machine is too busy to have seen enough until then."""

    def __init__(self, engine: Engine, seconds: float, enough: Enough, seed: int = 0) -> None:
        self.engine = engine
        self.questions = [self._conversation(canary) for canary in CANARIES]
        self.outcome = Outcome()
        self._end = time.monotonic() + seconds
        self._enough = enough
        self._seed = seed
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []

    def run(self) -> Outcome:
        """Let all clients loose until the time is over."""
        others = [threading.Thread(target=self._client, args=(number,)) for number in range(1, len(CANARIES))]
        watcher = threading.Thread(target=self._watch)
        for thread in (*others, watcher):
            thread.start()
        try:
            self._struck_client()
        finally:
            for thread in (*others, watcher):
                thread.join()
        if self._failed:
            raise self._failed[0]
        return self.outcome

    def _going(self) -> bool:
        late = time.monotonic() - self._end
        return late < 0 or (late < LATEST and not self._enough(self.outcome.counts))

    # --- what is right ------------------------------------------------------------------------------------------------------

    def _conversation(self, canary: str) -> list[Question]:
        """Three lengths of one conversation, each answered alone."""
        questions: list[Question] = []
        text = SHARED
        for page in range(3):
            text += "".join(f"Page {page}{i}: the ship {canary} sails under captain {canary}.\n" for i in range(4))
            prompt = self.engine.tokenize(f"{text}Page {page}9: the ship", special=False)
            questions.append(self._alone(prompt))
            assert canary in questions[-1].text, f"the model does not say {canary!r} by itself: {questions[-1].text!r}"
        return questions

    def _alone(self, prompt: tuple[int, ...]) -> Question:
        events = list(self.engine.submit(GenerateRequest(prompt, SamplerSettings(temperature=0), N_TOKENS, logprobs=2)))
        end = events[-1]
        assert isinstance(end, Finished)
        items = [item for event in events if isinstance(event, Tokens) for item in event.logprobs]
        return Question(prompt, end.ids, end.text, tuple(item.top[0][1] - item.top[1][1] for item in items))

    def _judge(self, number: int, question: Question, ids: tuple[int, ...], text: str, how: str, *, whole: bool) -> None:
        sure = min(question.sure, len(ids)) if not whole else question.sure
        right = ids[:sure] == question.ids[:sure] and (not whole or sure < len(question.ids) or ids == question.ids)
        astray = [other for other in CANARIES if other != CANARIES[number] and other in text]
        with self._lock:
            self.outcome.counts[how] += 1
            if not right:
                self.outcome.wrong.append(f"{CANARIES[number]}, {how}: {text!r} in place of {question.text!r}")
            if astray:
                self.outcome.leaked.append(f"{CANARIES[number]}, {how}: {text!r}")

    # --- who asks -----------------------------------------------------------------------------------------------------------

    def _client(self, number: int) -> None:
        draw = random.Random(self._seed * 100 + number)
        try:
            while self._going():
                self._ask(number, draw)
                time.sleep(draw.choice((0, 0, 0.05, 0.3)))
        except BaseException as error:
            self._failed.append(error)

    def _struck_client(self) -> None:
        """Client 0, in the main thread, with interrupts from outside at random moments."""
        draw = random.Random(self._seed * 100)
        with strikes(draw) as armed:
            while self._going():
                try:
                    armed.set()
                    self._ask(0, draw)
                    armed.clear()
                except KeyboardInterrupt:
                    with self._lock:
                        self.outcome.counts["struck by an interrupt"] += 1

    def _ask(self, number: int, draw: random.Random) -> None:
        question = draw.choice(self.questions[number])
        priority = draw.choice((0, 0, 5))
        request = GenerateRequest(
            question.prompt, SamplerSettings(temperature=0), N_TOKENS, conversation=CANARIES[number], priority=priority
        )
        how = draw.choices(("whole", "closed early", "cancelled", "dropped", "slow"), (60, 15, 10, 5, 10))[0]
        generation = self.engine.submit(request)
        ids: tuple[int, ...] = ()
        text = ""
        wanted = draw.randint(0, N_TOKENS)
        with closing(generation):
            for event in generation:
                if isinstance(event, Tokens):
                    ids, text = ids + event.ids, text + event.text
                if how in ("closed early", "dropped") and len(ids) >= wanted:
                    break
                if how == "cancelled" and len(ids) >= wanted:
                    generation.cancel()  # type: ignore[attr-defined]
                if how == "slow":
                    time.sleep(draw.random() * 0.05)
                if isinstance(event, Finished):
                    assert event.ids == ids, "what came in pieces is not the whole"
                    self._judge(number, question, ids, event.text, how, whole=event.reason != "interrupted")
                    return
            if how == "dropped":
                del generation
        self._judge(number, question, ids, text, how, whole=False)

    def _watch(self) -> None:
        process = psutil.Process()
        while self._going():
            self.outcome.memory.append(sum(part.anonymous for part in process.memory_maps()))
            time.sleep(0.5)


@contextmanager
def strikes(draw: random.Random) -> Iterator[threading.Event]:
    """Interrupt the main thread every few seconds, once each time it has set the event that this gives."""
    over, armed = threading.Event(), threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def strike() -> None:
        while not over.wait(draw.uniform(0.5, 4)):
            signal.pthread_kill(main, signal.SIGINT)

    def interrupt(*_: object) -> None:
        if armed.is_set():
            armed.clear()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        yield armed
    finally:
        armed.clear()
        over.set()
        striker.join()
        signal.signal(signal.SIGINT, before)


def soak(path: Path, seconds: float, enough: Enough = lambda counts: True) -> Outcome:
    """Load a model for more conversations than it has slots, and run."""
    config = EngineConfig(str(path), n_ctx=2048, n_slots=4, park_memory=6 * MIB, park_disk=12 * MIB, speculation="auto")
    with closing(open_engine(config)) as engine:
        return Soak(engine, seconds, enough).run()


def main() -> int:
    path = locate(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m").path
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 30
    outcome = soak(path, minutes * 60)
    print(", ".join(f"{n} {how}" for how, n in outcome.counts.most_common()))
    for line in (*outcome.wrong[:10], *outcome.leaked[:10]):
        print(line)
    asked = sum(outcome.counts.values())
    report(Result("soak_wrong_answers", float(len(outcome.wrong)), f"of {asked} requests", machine=machine()))
    report(Result("soak_words_astray", float(len(outcome.leaked)), f"of {asked} requests", machine=machine()))
    report(Result("soak_memory_drift", 100 * outcome.drift, "%", machine=machine()))
    return int(bool(outcome.wrong or outcome.leaked) or outcome.drift >= 0.02)


if __name__ == "__main__":
    sys.exit(main())
