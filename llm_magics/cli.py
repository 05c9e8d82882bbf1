"""The command line: ``llm-magics pull | doctor | formats | lab | strip``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magics.version import __version__

from .errors import LLMMagicsError, OptionError

if TYPE_CHECKING:
    from llm_magics.store.progress import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status. An LLMMagicsError is printed without a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except LLMMagicsError as error:
        print(f"llm-magics: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("llm-magics: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llm-magics", description="Language models inside notebooks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(under: Any, name: str, help: str, run: Callable[[argparse.Namespace], int] | None = None) -> Any:
        made = under.add_parser(name, help=help)
        made.set_defaults(run=run)
        return made

    pull = command(commands, "pull", "download a model into the cache and verify it, unless it is already there", _pull)
    pull.add_argument("name", nargs="*", help="a catalogue name, or a hub OWNER/REPO:FILE (or :QUANTISATION)")
    pull.add_argument("--list", action="store_true", help="print the catalogue")
    command(commands, "doctor", "show what is installed, the GPU, and what to type next", _doctor)
    lab = command(commands, "lab", "open JupyterLab on a notebook", _lab)
    lab.add_argument("notebook", nargs="?", default=".", help="a notebook or a directory (default: here)")
    strip = command(commands, "strip", "remove the records of conversations from notebooks, to share them", _strip)
    strip.add_argument("notebook", nargs="+", help="a notebook; it is replaced in one step")
    actions = command(commands, "formats", "inspect chat templates").add_subparsers(required=True, metavar="ACTION")
    show = command(actions, "show", "show what one template implies", _formats_show)
    show.add_argument("source", metavar="MODEL|TEMPLATE", help="a model (as for %%load_model) or a template file")
    return parser


def _pull(arguments: argparse.Namespace) -> int:
    from llm_magics.store.catalog import catalog
    from llm_magics.store.fetch import pull

    if arguments.list or not arguments.name:
        for entry in catalog():
            size = f"{entry.size / 1e9:6.2f} GB" if entry.size else "unverified"
            print(f"{entry.name:28} {size:>10}  {entry.license:24} {entry.about}")
        return 0
    for name in arguments.name:
        with _bar() as bar:
            found = pull(name, bar)
        checked = "sha256 verified" if found.verified else f"sha256 {found.sha256[:12]}..." if found.sha256 else "not verified"
        print(f"{found.name}: {found.path} ({found.size / 1e6:,.0f} MB, {checked}, from {found.source})")
    return 0


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show a progress bar on a terminal, elsewhere (CI logs) one line for each download."""
    from tqdm import tqdm

    told = ""
    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, disable=None, leave=False) as bar:

        def show(what: str, done: int, total: int, /) -> None:
            nonlocal told
            if bar.disable and what != told:
                print(f"fetching {what}", file=sys.stderr)
            told = what
            bar.set_description(what[-40:], refresh=False)
            bar.total = total or None
            bar.update(done - bar.n)

        yield show


def _doctor(_: argparse.Namespace) -> int:
    from llm_magics.doctor.report import report

    for row in report():
        print(row)
    return 0


def _lab(arguments: argparse.Namespace) -> int:
    target = Path(arguments.notebook)
    if not target.exists():
        raise OptionError(f"{target} does not exist.", "Check the path.")
    if find_spec("jupyterlab") is None:
        install = f"Install it: {sys.executable} -m pip install 'llm_magics[lab]'"
        raise OptionError("JupyterLab is not in this environment.", install)
    return subprocess.run([sys.executable, "-m", "jupyter", "lab", str(target)], check=False).returncode


def _strip(arguments: argparse.Namespace) -> int:
    from .notebooks import strip

    failed = 0
    for name in arguments.notebook:
        try:
            print(strip(Path(name)))
        except LLMMagicsError as error:  # continue with the others
            print(f"llm-magics: {error}", file=sys.stderr)
            failed = 1
    return failed


def _formats_show(arguments: argparse.Namespace) -> int:
    from llm_magics.chat.show import show
    from llm_magics.models.template_source import template_source

    found = template_source(arguments.source)
    print(show(found.source, found.bos_token, found.eos_token, found.control_tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
