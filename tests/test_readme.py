"""The README's Python, executed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.model
def test_every_python_block_of_the_readme_runs(smollm, capsys):
    assert len(BLOCKS) == 3
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["weather"]("Oslo") == {"city": "Oslo", "temperature": 21.5, "unit": "celsius"}
    assert namespace["reply"].text
    assert len(namespace["colours"]) == 3
    assert not namespace["colours"].errors
    assert namespace["reply"].text in capsys.readouterr().out
