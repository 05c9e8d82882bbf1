"""The package as it is installed: its wheel with and without Node, and a kernel that has nothing but what the wheel asks for.

The environment that it is installed into is a real one. What the wheel requires, and what that requires, is linked into it from
the environment of the tests; nothing else is there to be imported, JupyterLab and ipywidgets least of all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import llm_magics
from llm_magics import __version__
from llm_magics.engine.native.library import cpu_library
from llm_magics.engine.native.openmp import SPINS, runtime_of
from tests.kernel.notebook import TIMEOUT, Notebook

ROOT = Path(__file__).parents[1]
DATA = f"llm_magics-{__version__}.data/data"
SHARED = f"{DATA}/share/jupyter/labextensions/llm-magics"


def source(target: Path) -> Path:
    """What a build needs, in a directory of its own, with no bundle."""
    unwanted = shutil.ignore_patterns("labextension", "__pycache__")
    shutil.copytree(ROOT / "llm_magics", target / "llm_magics", ignore=unwanted)
    shutil.copytree(ROOT / "labextension" / "jupyter-config", target / "labextension" / "jupyter-config")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "labextension/install.json"):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    return target


def build(tree: Path, *, node: bool) -> tuple[Path, str]:
    """Build the wheel as pip does; return it and what was printed. Without Node, PATH is an empty directory."""
    empty, out = tree.parent / "empty", tree.parent / "dist"
    empty.mkdir(exist_ok=True)
    environment = os.environ | {"PATH": os.environ["PATH"] if node else str(empty)}
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", str(out), str(tree)]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = out.glob("*.whl")
    return wheel, built.stdout + built.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The wheel of a machine without Node, and what building it printed."""
    return build(source(tmp_path_factory.mktemp("plain") / "source"), node=False)


def test_a_build_without_node_leaves_the_extension_out_and_says_so(plain: tuple[Path, str]) -> None:
    wheel, printed = plain
    assert "Node was not found, so llm_magics is built without its JupyterLab extension" in printed
    names = ZipFile(wheel).namelist()
    assert "llm_magics/__init__.py" in names
    assert f"{DATA}/etc/jupyter/jupyter_nbconvert_config.json" in names
    assert f"{DATA}/etc/jupyter/jupyter_server_config.d/llm_magics.json" in names
    assert not [name for name in names if "labextension" in name]


@pytest.mark.parametrize("node", [False, True])
def test_a_bundle_that_is_there_is_shipped_where_jupyterlab_looks(tmp_path: Path, node: bool) -> None:
    """As from a source distribution, which holds the bundle: nothing is built, with Node or without."""
    if node and not shutil.which("node"):
        pytest.skip("this machine has no Node")
    tree = source(tmp_path / "source")
    bundle = tree / "llm_magics" / "labextension"
    (bundle / "static").mkdir(parents=True)
    (bundle / "package.json").write_text('{"name": "llm-magics"}')
    (bundle / "static" / "remoteEntry.js").write_text("// the bundle")
    wheel, printed = build(tree, node=node)
    assert "Node was not found" not in printed
    names = ZipFile(wheel).namelist()
    for name in ("package.json", "install.json", "static/remoteEntry.js"):
        assert f"{SHARED}/{name}" in names
    assert "llm_magics/labextension/package.json" in names


def test_jupyters_build_tools_are_told_where_the_bundle_is() -> None:
    (told,) = llm_magics._jupyter_labextension_paths()
    package = json.loads((ROOT / "labextension" / "package.json").read_text(encoding="utf-8"))
    assert told["dest"] == package["name"]
    built = (ROOT / "labextension" / package["jupyterlab"]["outputDir"]).resolve()
    assert (ROOT / "llm_magics" / told["src"]).resolve() == built


def required(wheel: Path) -> dict[str, Distribution]:
    """All that the wheel requires without extras, by name."""
    metadata = next(name for name in ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    lines = ZipFile(wheel).read(metadata).decode().split("\n\n")[0].splitlines()
    wanted = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist")]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "") for text in wanted]
    while todo:
        need, extra = todo.pop()
        name = canonicalize_name(need.name)
        if need.marker is not None and not need.marker.evaluate({"extra": extra}):
            continue
        dist = found.setdefault(name, distribution(need.name))
        for asked in ("", *need.extras):
            if (name, asked) not in seen:
                seen.add((name, asked))
                todo += [(Requirement(text), asked) for text in dist.requires or ()]
    return found


@pytest.fixture(scope="module")
def light(plain: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what it requires."""
    home = tmp_path_factory.mktemp("light") / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(plain[0])]
    subprocess.run(command, check=True, capture_output=True)
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    for dist in required(plain[0]).values():
        tops = {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (packages / top).exists():
                link(Path(str(dist.locate_file(top))), packages / top)
    return python


def link(original: Path, place: Path) -> None:
    """A symbolic link, or a copy where a user may not make one (Windows)."""
    try:
        place.symlink_to(original)
    except OSError:
        copy = shutil.copytree if original.is_dir() else shutil.copy
        copy(original, place)


def environment(light: Path, tmp_path: Path) -> dict[str, str]:
    """As a new user's: no way to the tests' own packages, nor to the machine's Jupyter."""
    foreign = ("PYTHON", "JUPYTER", "IPYTHON", "OMP_", "GOMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{light.parent}{os.pathsep}{os.environ['PATH']}"
    homes = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_DATA_DIR": str(tmp_path / "jupyter")}
    return kept | homes | {"PATH": path, "HF_ENDPOINT": "http://127.0.0.1:9"}  # no test asks the hub


@pytest.fixture
def book(light: Path, tmp_path: Path) -> Iterator[Notebook]:
    """A kernel of that environment."""
    spec = tmp_path / "kernels" / "light"
    spec.mkdir(parents=True)
    argv = [str(light), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "light", "language": "python"}))
    specs = KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False)
    manager = KernelManager(kernel_name="light", kernel_spec_manager=specs)
    manager.start_kernel(env=environment(light, tmp_path), cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


SETUP = '''
from llm_magics import ScriptedModel, ToolCall, tool
@tool(approve="ask")
def weather(city: str) -> str:
    "Tell the weather."
    return f"rain in {city}"
def scripted():
    return ScriptedModel([ToolCall("weather", '{"city": "Oslo"}'), "Take an **umbrella**."])
'''


@pytest.mark.kernel
def test_a_kernel_without_jupyterlab_and_ipywidgets_chats_calls_and_asks_by_prompt(book: Notebook) -> None:
    assert "light" in book.must("import llm_magics; print(llm_magics.__file__)").printed
    book.must("from importlib.util import find_spec")
    absent = book.must("print([find_spec(name) for name in ('jupyterlab', 'notebook', 'jupyter_server', 'ipywidgets')])")
    assert absent.printed.strip() == "[None, None, None, None]"
    book.must("%load_ext llm_magics")
    book.must(SETUP)
    book.must("model = scripted()")
    book.must("%%chat reply -m model\nHow is the weather?")  # no input line: nobody can be asked
    assert book.must("print(reply.messages[-2].text)").printed.strip() != "rain in Oslo"
    book.must("model = scripted()")
    asked: list[str] = []
    ran = book.must("%%chat reply -m model --thread two\nHow is the weather?", typed=lambda prompt: asked.append(prompt) or "y")
    assert "Oslo" in asked[0]
    assert "umbrella" in ran.transcript.text
    assert book.must("print(reply.messages[-2].text)").printed.strip() == "rain in Oslo"
    assert {"text/html", "text/markdown", "text/plain"} <= ran.bundles[-1].keys()
    mapped = book.must("from llm_magics import map_prompts\nm = map_prompts(ScriptedModel(['a', 'b']), [1, 2], template='{}')")
    assert "2/2" in mapped.printed
    assert "Warning" not in mapped.printed
    assert book.value("m.values") == "['a', 'b']"


@pytest.mark.kernel
def test_the_doctor_of_that_kernel_says_what_is_missing(book: Notebook) -> None:
    book.must("%load_ext llm_magics")
    for line in ("%llm status", "%models", "%tools"):
        book.must(line)
    unreachable = book.run("%load_model nobody/nothing:file.gguf")
    assert unreachable.reply["ename"] == "DownloadError"
    assert unreachable.printed == ""  # no word of widgets that are missing
    said = book.must("%llm doctor").bundles[-1]["text/plain"]
    assert "missing: this llm_magics was built without Node" in said
    assert "pip install 'llm_magics[lab]'" in said
    assert "ask for approval" in said
    if runtime_of(cpu_library()) == "libgomp" and sys.platform == "linux":
        assert f"waiting threads soon sleep (GOMP_SPINCOUNT={SPINS})" in said


TERMINAL = SETUP + '''
shell = get_ipython()
shell.run_line_magic("load_ext", "llm_magics")
model = scripted()
shell.run_cell_magic("chat", "reply -m model", "How is the weather?")
print("RESULT:", reply.messages[-2].text)
'''


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs a POSIX system")
def test_a_terminal_without_them_asks_on_its_input_line(light: Path, tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect", reason="a terminal of its own needs a POSIX system")
    script = tmp_path / "chat.py"
    script.write_text(TERMINAL, encoding="utf-8")
    shown, status = pexpect.run(
        f"{light} -m IPython --no-banner {script}",
        timeout=120,
        withexitstatus=True,
        dimensions=(40, 200),
        env=environment(light, tmp_path) | {"TERM": "xterm"},
        cwd=str(tmp_path),
        events={"lways for this turn: ": "y\n"},
    )
    lines = shown.decode("utf-8", "replace")
    assert status == 0, lines
    assert "RESULT: rain in Oslo" in lines
