"""Templates that nobody prepared are derived, rendered and read back: our own, and a directory of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import smoke

from .formats import OWN, WILD

_WILD = sorted(WILD.glob("*.jinja"))
_MOST_PROOFS = 5


@pytest.mark.parametrize("path", sorted(OWN.glob("*.jinja")), ids=lambda p: p.stem)
def test_our_own_templates_pass_the_smoke(path: Path) -> None:
    report = smoke.try_template(path, count=12)
    assert (report.lost_words, report.unread, report.refused) == ([], [], "")


@pytest.mark.skipif(not _WILD, reason="there is no directory of other templates beside this checkout")
@pytest.mark.parametrize("part", range(8))
def test_templates_in_the_wild_pass_the_smoke(part: int) -> None:
    failed = [(r.name, r.lost_words, r.unread[:1]) for r in map(smoke.try_template, _WILD[part::8]) if not r.passed]
    assert failed == []


@pytest.mark.skipif(not _WILD, reason="there is no directory of other templates beside this checkout")
def test_few_templates_in_the_wild_lose_calls_themselves() -> None:
    bare = [p for p in _WILD if "pythonic" in p.name or "toolace" in p.name]
    assert len([r for r in (smoke.try_template(p) for p in bare) if r.proof]) <= _MOST_PROOFS


_LOSSY = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{{ tools | tojson if loop.first and tools }}"
    "{% for c in m.tool_calls or [] %}<do>{{ c.function.name }}("
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}"
    "{% endfor %})</do>{% endfor %}</{{ m.role }}>{% endfor %}{{ '<assistant>' if add_generation_prompt }}"
)


def test_a_template_that_writes_two_calls_alike_is_proved_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lossy.jinja").write_text(_LOSSY, encoding="utf-8")
    assert smoke.main([str(tmp_path)]) == 0
    assert "are written alike" in capsys.readouterr().out


def test_a_template_whose_words_get_lost_fails_the_smoke(tmp_path: Path) -> None:
    source = (OWN / "json.jinja").read_text(encoding="utf-8")
    (tmp_path / "mute.jinja").write_text(source.replace("message.content or", "message.content | replace('kans', '') or"))
    assert smoke.main([str(tmp_path)]) == 1
