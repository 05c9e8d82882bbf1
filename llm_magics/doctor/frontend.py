"""The JupyterLab extension as the doctor sees it: in the package, and where a JupyterLab of this environment would find it.

The package's wheel lays the bundle into ``share/jupyter/labextensions``. A wheel that was built without Node has none. A
JupyterLab that runs in another environment than this kernel looks there, which cannot be seen from here.
"""

from __future__ import annotations

import json
from pathlib import Path

NAME = "llm-magics"
"""The name that JupyterLab knows the extension by."""


def bundle() -> Path | None:
    """Return the bundle inside the package; None if it was built without Node."""
    directory = Path(__file__).parents[1] / "labextension"
    return directory if (directory / "package.json").exists() else None


def installed() -> Path | None:
    """Return the extension's directory among the data directories of this environment's Jupyter; None if it is in none."""
    from jupyter_core.paths import jupyter_path

    found = (Path(directory, NAME) for directory in jupyter_path("labextensions"))
    return next((directory for directory in found if (directory / "package.json").exists()), None)


def version(directory: Path) -> str:
    """Return the version that a bundle says it has; empty if it does not say."""
    try:
        return str(json.loads((directory / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
