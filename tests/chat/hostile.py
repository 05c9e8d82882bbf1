"""Hostile chat templates from a fixed seed: loops, bombs, escapes, recursion, and nonsense.

A template that gets out of the sandbox prints what it found behind ``OUT:``; an undefined value is nothing found.
"""

# ruff: noqa: E501 - a template or an answer is easier to read on one line

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

_USER = "{% for m in messages %}{{ m.content }}{% endfor %}"


def hostile_templates(count: int = 200, seed: int = 20) -> Iterator[tuple[str, str]]:
    """Name and source of each template."""
    dice = random.Random(seed)
    for i in range(count):
        kind = _KINDS[i % len(_KINDS)]
        body = kind(dice)
        yield f"{i:03} {kind.__name__.strip('_')}", dice.choice([body + _USER, _USER + body])


def _nested_loops(dice: random.Random) -> str:
    depth, size = dice.randint(3, 9), dice.choice([99, 999, 9999])
    return "".join(f"{{% for i{d} in range({size}) %}}" for d in range(depth)) + "x" + "{% endfor %}" * depth


def _doubling(dice: random.Random) -> str:
    grow = dice.choice(["s ~ s", "s + s", "[s, s]", "s * 2", "(s, s) | join", "s | replace('a', 'aa')", "'%s%s' % (s, s)"])
    return f"{{% set ns = namespace(s='a') %}}{{% for i in range(200) %}}{{% set s = ns.s %}}{{% set ns.s = {grow} %}}{{% endfor %}}{{{{ ns.s }}}}"


def _one_big_value(dice: random.Random) -> str:
    n = 10 ** dice.randint(8, 30)
    made = [
        f"'a' * {n}", f"[0] * {n}", f"range({n}) | list", f"'a'.ljust({n})", f"'a' | center({n})", f"'%{n}d' % 1",
        f"'{{:>{n}}}'.format(1)", f"'x' | indent({n})", f"2 ** {n}", f"9 ** 9 ** 9 ** {dice.randint(2, 9)}",
        f"'a\\tb'.expandtabs({n})", f"[1, 2] | batch({n}, 0) | list", f"'1'.zfill({n})", f"messages | tojson(indent={n})",
        f"('%0{n}d' | format(1))", f"'a'.join(['b'] * {n})", f"'aa'.replace('a', 'b' * {n})", f"(1,) * {n}",
    ]  # fmt: skip
    return "{{ " + dice.choice(made) + " }}"


def _attribute_escape(dice: random.Random) -> str:
    start = dice.choice(
        ["''", "[]", "messages", "messages[0]", "range", "namespace", "cycler", "raise_exception", "joiner", "dict", "self"]
    )
    steps = dice.choice(
        [
            ".__class__.__mro__[1].__subclasses__()", ".__init__.__globals__", ".__globals__", ".__class__.__base__",
            "|attr('__class__')", "['__class__']", ".__reduce_ex__(2)", ".mro()", ".__call__.__func__.__globals__",
            ".__init_subclass__", ".gi_frame.f_globals", ".f_back.f_globals", "|map(attribute='__class__')|list",
            "|map('attr', '__class__')|list", ".format.__self__.__class__",
        ]
    )  # fmt: skip
    return f"{{% set out = ({start}){steps} %}}{{% if out %}}OUT:{{{{ out }}}}{{% endif %}}"


def _format_escape(dice: random.Random) -> str:
    what = dice.choice(["'{0.__class__}'", "'{0.__init__.__globals__}'", "'{x.__class__.__mro__}'", "'{0[__class__]}'"])
    call = dice.choice([".format(messages, x=messages)", ".format_map({'x': messages, '0': messages})"])
    return f"{{% set out = {what}{call} %}}{{{{ 'OUT:' ~ out if 'class' in out or 'built' in out else '' }}}}"


def _recursion(dice: random.Random) -> str:
    return dice.choice(
        [
            "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
            "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
            "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% else %}abcdefgh{% endif %}{% endmacro %}{{ f(60) }}",
            "{% set a = [[1]] %}{% for x in a recursive %}{{ loop(a) }}{% endfor %}",
            "{% set a = [] %}{% do a.append(a) %}{{ a }}{{ a | tojson }}",
            "{% set ns = namespace(a=[1]) %}{% for i in range(90) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
            "{% set ns = namespace(a=[1]) %}{% for i in range(90) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a == ns.a }}",
            "{% set ns = namespace(a={}) %}{% for i in range(90) %}{% set ns.a = {'x': ns.a, 'y': ns.a} %}{% endfor %}{{ ns.a | tojson }}",
            "{% set a = [0] %}{% for x in a %}{% do a.append(x) %}{% endfor %}",
            "{% set a = ['x'] %}{% for i in range(99) %}{% do a.extend(a) %}{% endfor %}{{ a | join }}",
            "{% set a = [] %}{% for i in range(99999) %}{% do a.extend(range(99999)) %}{% endfor %}",
            "{% set a = [] %}{% for i in range(99999) %}{% do a.append(messages * 9999) %}{% endfor %}",
            "{% for i in range(99999) %}{% for x in ('a,' * 99999).split(',') %}{% endfor %}{% endfor %}",
        ]
    )


def _nested_source(dice: random.Random) -> str:
    n = dice.choice([50, 500, 5_000, 50_000])
    return dice.choice(
        [
            "{{ " + "(" * n + "1" + ")" * n + " }}",
            "{{ " + "[" * n + "]" * n + " }}",
            "{% if 1 %}" * n + "{% endif %}" * n,
            "{{ " + "not " * n + "1 }}",
            "{{ 1" + " + 1" * n + " }}",
            "{{ 'a'" + " | upper" * n + " }}",
            "{{ a" + ".b" * n + " }}",
        ]
    )


def _big_output(dice: random.Random) -> str:
    text = "y" * dice.choice([10, 1_000, 30_000])
    around = dice.choice(["{0}", "{{% set z %}}{0}{{% endset %}}{{{{ z }}}}", "{{% filter upper %}}{0}{{% endfilter %}}"])
    return around.format(f"{{% for i in range(99999) %}}{text}{{% endfor %}}")


def _nonsense(dice: random.Random) -> str:
    return dice.choice(
        [
            "{% for %}", "{{ messages[", "{% include 'x' %}", "{% import 'os' as os %}{{ os }}", "{% extends 'x' %}", "{{ 1 / 0 }}",
            "{{ undefined_name.x.y }}", "{{ raise_exception('no') }}", "{{ raise_exception() }}", "{{ messages | tojson | from_json | nothing }}",
            "{% set messages = 5 %}{{ messages.x() }}", "{{ strftime_now('%' * 9999) }}", "{{ 'a' | int | round(-999999999) }}", "\x00{{ '\ud800' }}",
            "{{ messages.clear() }}{{ messages[0] }}", "{% do messages.append(messages) %}{{ messages | tojson }}", "{{ {}|dictsort|first }}",
            "{{ 'x'.encode('utf-8').hex() }}", "{{ ''.translate({}) }}", "{{ [3, 'a', none] | sort }}", "{{ ('9' * 9999) | int }}",
        ]
    )  # fmt: skip


def _lazy_bomb(dice: random.Random) -> str:
    return dice.choice(
        [
            "{{ range(99999) | map('string') | map('center', 999) | join }}",
            "{{ (['ab' * 999] * 999) | map('replace', 'a', 'b' * 999) | join }}",
            "{% for a in range(99999) | batch(1) | batch(1) | batch(1) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{{ (['a' * 1000] * 1000) | sum(start='') }}",
            "{{ ([[1] * 1000] * 1000) | sum(start=[]) | length }}",
            "{{ range(99999) | list | tojson * 999 }}",
            "{{ ('a,' * 99999).split(',') | map('upper') | list | string * 99 }}",
            "{% set c = cycler(*range(9999)) %}{% for i in range(9999) %}{% for j in range(9999) %}{{ c.next() }}{% endfor %}{% endfor %}",
            "{{ lipsum(n=99999) }}",
            "{{ range(99999) | groupby('x') | list | tojson }}",
            "{{ '<a>' * 99999 | striptags | urlize }}",
            "{{ ('a' * 9999) | wordwrap(1) | wordwrap(1) | list | join('x' * 9999) }}",
        ]
    )


def _heavy_to_analyse(dice: random.Random) -> str:
    noise = dice.choice(["'<' ~ 'a' * 40000 ~ '>'", "'{' * 9999", "'{\"a\":' * 9999", "'[' * 40000", "'<a>' * 9999", "'a' * 40000", "'\"' * 9999"])
    call = "{{ c.function.name }}" + noise_of(noise) + "{{ c.function.arguments | tojson }}"
    return (
        "{% for m in messages %}" + noise_of(noise) + "{{ m.content }}{% for c in m.tool_calls or [] %}" + noise_of(noise) + call
        + "{% endfor %}{% endfor %}{{ " + noise + " if add_generation_prompt }}"
    )  # fmt: skip


def noise_of(expression: str) -> str:
    return "{{ " + expression + " }}"


_KINDS: tuple[Callable[[random.Random], str], ...] = (
    _nested_loops, _doubling, _one_big_value, _attribute_escape, _format_escape,
    _recursion, _nested_source, _big_output, _nonsense, _lazy_bomb,
    _heavy_to_analyse,
)  # fmt: skip
