"""A draft model against plain decoding, on work that copies and on work that does not; greedy and sampled.

    python -m tests.bench.draft [MODEL] [DRAFT] [PAIRS]

The larger the gap in size between the two, and the more tokens the machine evaluates in the time of one (a GPU many, a CPU
few), the more a draft helps.
"""

from __future__ import annotations

import sys
from contextlib import closing

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import EngineConfig
from llm_magics.store.locate import locate

from .common import compare, report
from .lookup import WORK, generate, speed


def main() -> None:
    path, draft = (str(locate(name).path) for name in (sys.argv[1:3] if len(sys.argv) > 2 else DEFAULT))
    pairs = int(sys.argv[3]) if len(sys.argv) > 3 else 15
    guessing_config = EngineConfig(path, n_ctx=1024, draft=draft)
    with closing(open_engine(EngineConfig(path, n_ctx=1024))) as plain, closing(open_engine(guessing_config)) as guessing:
        for work, (text, n) in WORK.items():
            name = work.replace("lookup", "draft")
            found, _ = generate(guessing, text, n)
            print(f"{name}: {found.accepted} of {found.drafted} guessed tokens were right, {len(found.ids)} tokens in all")
            ours = lambda text=text, n=n: speed(guessing, text, n)  # noqa: E731
            theirs = lambda text=text, n=n: speed(plain, text, n)  # noqa: E731
            report(compare(name, "tokens/s", ours, "plain decoding", theirs, pairs=pairs))


DEFAULT = ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b")

if __name__ == "__main__":
    main()
