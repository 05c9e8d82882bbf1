"""The rules of a kernel: which models and tools its magics may use, how much approval, how long a turn; and defaults.

Rules come from two places, and the stricter one wins. The configuration of IPython (class ``LLMMagics`` in
``ipython_config.py``, or on the kernel's command line) is a teacher's or an administrator's. It is read once, and neither a
magic nor a page can loosen it. The settings of JupyterLab are the user's, and can only tighten it. Defaults, by contrast, apply
to cells without the option; a cell may choose otherwise, within the rules.

Rules hold for the magics alone. They are not a sandbox: Python code in a kernel can do what its process can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeAlias, get_args

from traitlets import Bool, Enum, Float, Int, List, TraitError, TraitType, Unicode
from traitlets.config import Config, Configurable

from llm_magics.errors import OptionError
from llm_magics.kernel.options.specs import CHAT, LOAD_MODEL, LoadOptions
from llm_magics.models.remote.address import is_address
from llm_magics.options import Number, Option
from llm_magics.session.settings import TurnSettings
from llm_magics.tools.define.tool import Tool
from llm_magics.tools.policy import Approve, Limits

Patterns: TypeAlias = tuple[str, ...]
STRICTNESS: Mapping[str, int] = {policy: rank for rank, policy in enumerate(get_args(Approve))}  # auto < ask < deny
_WHERE = "%llm status shows the rules. They come from this kernel's configuration and your JupyterLab settings."


def _trait(kind: Any, default: Any, help: str, **bounds: Any) -> TraitType[Any, Any]:
    made: TraitType[Any, Any] = kind(default, help=help, **bounds)
    return made.tag(config=True)


def _default(one: Option) -> TraitType[Any, Any]:
    """The trait of an option's default; without a default it is 0, or None if 0 is a value of the option."""
    if not isinstance(one.read, Number):
        return _trait(Unicode, "", one.trait)
    nothing = None if one.read.least == 0 else 0
    kind = Int if one.read.kind is int else Float
    return _trait(kind, nothing, one.trait, allow_none=nothing is None, min=0, max=one.read.most)


_POLICY, _PATTERNS = partial(Enum, get_args(Approve)), partial(List, Unicode())
_WITH_DEFAULT = [one for spec in (LOAD_MODEL, CHAT) for one in (*spec.words, *spec.options) if one.trait]
_DEFAULTS = {f"default_{'model' if one.field == 'name' else one.field}": _default(one) for one in _WITH_DEFAULT}
DEFAULTS = tuple(_DEFAULTS)


class LLMMagics(type("Defaults", (Configurable,), _DEFAULTS)):  # type: ignore[misc]  # its traits come from the table of options
    """The rules as traits, named as in JupyterLab's settings; and the defaults, which are the kernel's alone."""

    approve = _trait(_POLICY, "auto", "The least approval: auto, ask (every call is asked about) or deny.")
    allowed_models = _trait(
        _PATTERNS, [], 'The models that may be used, e.g. ["smollm2-*", "/srv/models/*"]: catalogue names or paths; [] is all.'
    )
    allowed_servers = _trait(
        _PATTERNS, [], 'The servers that may be asked, e.g. ["localhost", "*.lab.org:8080"]: hosts, or host:port; [] is all.'
    )
    allowed_tools = _trait(_PATTERNS, [], 'The tools that may be offered, e.g. ["calculate", "plot_*"]; [] is all.')
    max_steps = _trait(Int, 0, "Most answers of the model in a turn; 0 leaves it as it is.", min=0)
    max_calls = _trait(Int, 0, "Most tool calls in one answer; 0 leaves it as it is.", min=0)
    max_tokens = _trait(Int, 0, "Most tokens generated in a turn; 0 leaves it as it is.", min=0)
    max_seconds = _trait(Float, 0.0, "Longest turn, in seconds; 0 leaves it as it is.", min=0.0)
    record = _trait(Bool, False, "Record every turn, as --record does: the notebook then keeps token ids and prompts.")
    max_result_chars = _trait(Int, 0, "Most characters that the model reads of a result; 0 leaves it as it is.", min=0)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules as a value. ``models``, ``tools`` and ``servers`` hold groups of patterns: a name must match one of each group.
    Without a rule every server may be asked: any cell can open a connection, so a narrower default would protect nothing.
    ``limits`` has the names of :class:`~llm_magics.tools.policy.Limits`."""

    approve: Approve = "auto"
    models: tuple[Patterns, ...] = ()
    tools: tuple[Patterns, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    record: bool = False
    servers: tuple[Patterns, ...] = ()

    @classmethod
    def of(cls, said: Mapping[str, Any], where: str) -> Rules:
        """Read rules by the names of their traits; raises OptionError, which names their source ``where``."""
        known = LLMMagics.class_trait_names(config=True)
        return cls.in_traits(_read(said, where, [name for name in known if name not in DEFAULTS]))

    @classmethod
    def in_traits(cls, traits: LLMMagics) -> Rules:
        limits = {name: getattr(traits, f"max_{name}") for name in ("steps", "calls", "tokens", "seconds", "result_chars")}
        allowed = (traits.allowed_models, traits.allowed_tools, traits.allowed_servers)
        models, tools, servers = ((tuple(names),) if names else () for names in allowed)
        return cls(traits.approve, models, tools, {name: most for name, most in limits.items() if most}, traits.record, servers)

    def tightened(self, other: Rules) -> Rules:
        """The stricter of both, rule by rule."""
        limits = {name: min(self.limits.get(name, most), most) for name, most in other.limits.items()}
        approve = max(self.approve, other.approve, key=STRICTNESS.__getitem__)
        models, tools = (*self.models, *other.models), (*self.tools, *other.tools)
        servers = (*self.servers, *other.servers)
        return Rules(approve, models, tools, {**self.limits, **limits}, self.record or other.record, servers)

    def check_server(self, names: Sequence[str]) -> None:
        """Raise OptionError unless the server may be asked under one of its names; none is no server."""
        if names and not any(_matches(name, self.servers) for name in names):
            raise OptionError(f"The rules of this kernel do not allow the server {names[-1]}.", _allowed(self.servers))

    def check_model(self, names: Iterable[str]) -> None:
        """Raise OptionError unless the model may be used under one of its names."""
        names = list(names)
        if not any(_matches(name, self.models) for name in names):
            raise OptionError(f"The rules of this kernel do not allow the model {names[0]!r}.", _allowed(self.models))

    def allows_tool(self, name: str) -> bool:
        return _matches(name, self.tools)

    def tools_for(self, chosen: Iterable[Tool], *, named: bool) -> tuple[Tool, ...]:
        """The tools that a turn may offer; raises OptionError if one was ``named`` that is not allowed."""
        chosen = tuple(chosen)
        refused = ", ".join(repr(tool.name) for tool in chosen if not self.allows_tool(tool.name))
        if refused and named:
            raise OptionError(f"The rules of this kernel do not allow the tool {refused}.", _allowed(self.tools))
        return tuple(tool for tool in chosen if self.allows_tool(tool.name))

    def for_turn(self, given: Mapping[str, Any], usual: TurnSettings) -> dict[str, Any]:
        """Apply the rules to a magic's options for one turn of a session; raises OptionError if it asks for more."""
        asked = given.get("approve")
        if asked is not None and STRICTNESS[asked] < STRICTNESS[self.approve]:
            raise OptionError(f"--approve {asked} is looser than the rules of this kernel: at least {self.approve}.", _WHERE)
        for name, option in (("steps", "max_steps"), ("calls", "max_calls"), ("tokens", "max_tokens")):
            most = self.limits.get(name)
            if most is not None and (given.get(option) or 0) > most:
                spelling = option.replace("_", "-")
                raise OptionError(f"--{spelling} {given[option]} is more than the rules of this kernel allow: {most}.", _WHERE)
        approve = max(self.approve, asked or usual.approve or "auto", key=STRICTNESS.__getitem__)
        held = dict(given) if approve == "auto" else {**given, "approve": approve}
        return {**held, "limits": self._limits(given.get("limits") or usual.limits)} if self.limits else held

    def _limits(self, limits: Limits) -> Limits:
        usual = {name: getattr(limits, name) for name in self.limits}
        held: dict[str, Any] = {n: most if usual[n] is None else min(usual[n], most) for n, most in self.limits.items()}
        if "calls" in held:
            held["recovered_calls"] = min(limits.recovered_calls, held["calls"])
        return replace(limits, **held)

    def rows(self) -> list[tuple[str, str]]:
        """The rules in words, for a card; none if everything is allowed."""
        limits = ", ".join(f"{most:g} {name.replace('_', ' ')}" for name, most in self.limits.items())
        said = [("models", self.models), ("servers", self.servers), ("tools", self.tools)]
        return [
            *([("rule: approval", f"at least {self.approve}")] if self.approve != "auto" else []),
            *((f"rule: {what}", " and ".join(", ".join(group) for group in groups)) for what, groups in said if groups),
            *([("rule: at most", limits)] if limits else []),
            *([("rule: record", "every turn")] if self.record else []),
        ]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The traits ``default_...`` that are set."""

    model: str = ""
    ctx: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def for_load(self, options: LoadOptions) -> LoadOptions:
        """Fill in the defaults of a ``%load_model`` line; the name ``default`` means the default model."""
        named = self.model if self.model and options.name.lower() == "default" else options.name
        free = options.ctx is None and not is_address(named)  # a server has its own context
        return replace(options, name=named, ctx=self.ctx if free else options.ctx)

    def for_turn(self, given: Mapping[str, Any], usual: TurnSettings, rules: Rules) -> dict[str, Any]:
        """Fill in the defaults of a magic's options for one turn of a session, within the rules."""
        laid = dict(given)
        sampling = laid.get("sampling") or usual.sampling
        if self.temperature is not None and sampling.temperature is None:
            laid["sampling"] = replace(sampling, temperature=self.temperature)
        if self.max_tokens is not None and laid.get("max_tokens") is None and usual.max_tokens is None:
            laid["max_tokens"] = min(self.max_tokens, int(rules.limits.get("tokens", self.max_tokens)))
        return laid

    def rows(self) -> list[tuple[str, str]]:
        found = ((one.name, getattr(self, one.name)) for one in fields(self))
        return [(f"default {name.replace('_', ' ')}", str(value)) for name, value in found if value not in ("", None)]


def configured(shell: Any) -> Rules:
    """The rules in the configuration of this IPython; raises OptionError."""
    return Rules.in_traits(traits_of(shell))


def defaults(shell: Any) -> Defaults:
    """The defaults in the configuration of this IPython; raises OptionError."""
    traits = traits_of(shell)
    said = {name: getattr(traits, name) for name in DEFAULTS}
    return Defaults(**{name.removeprefix("default_"): v for name, v in said.items() if v != _DEFAULTS[name].default_value})


def traits_of(shell: Any) -> LLMMagics:
    """LLMMagics in the configuration of this IPython; raises OptionError."""
    config = getattr(shell, "config", None)
    said = config["LLMMagics"] if isinstance(config, Config) and "LLMMagics" in config else {}
    return _read(said, "LLMMagics in IPython's configuration", LLMMagics.class_trait_names(config=True))


def _read(said: Mapping[str, Any], where: str, known: Iterable[str]) -> LLMMagics:
    known = list(known)
    if unknown := [name for name in said if name not in known]:
        raise OptionError(f"{where} has no setting {unknown[0]!r}.", f"The settings are {', '.join(known)}.")
    try:
        return LLMMagics(config=Config({"LLMMagics": dict(said)}))
    except (TraitError, ValueError) as error:
        raise OptionError(f"{where} cannot be used: {error}") from error


def names_of(name: str) -> tuple[str, ...]:
    """The names that rules may match for ``%load_model name``. A file counts by its whole path, and by the catalogue's name
    only if its hash is the catalogue's."""
    from llm_magics.store.catalog import find
    from llm_magics.store.locate import file_at, locate, meant

    name = meant(name)
    path = file_at(name)
    if path is not None:
        file = locate(path)
        return (path.resolve().as_posix(), *(file.entry.names if file.entry is not None and file.verified else ()))
    entry = find(name)
    return tuple(entry.names) if entry is not None else (name,)


def _allowed(groups: tuple[Patterns, ...]) -> str:
    return f"They allow {' and '.join(', '.join(group) for group in groups)}. {_WHERE}"


def _matches(name: str, groups: tuple[Patterns, ...]) -> bool:
    """Whether each group has a pattern for the name. A pattern without a slash matches no path, e.g. "*-135m" no file's."""
    paths = "/" in name
    return all(any(fnmatchcase(name, one) for one in group if one == "*" or "/" in one or not paths) for group in groups)
