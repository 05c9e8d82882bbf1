"""Build the JupyterLab extension into the package; without Node, build the package without it and say so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import hatch_jupyter_builder.plugin as jupyter_builder

BUNDLE = "llm_magics/labextension"
SHARED = "share/jupyter/labextensions/llm-magics"  # where JupyterLab looks, below the environment's prefix


class ExtensionHook(jupyter_builder.JupyterBuildHook):
    """Builds as hatch-jupyter-builder does, and ships the bundle for JupyterLab if there is one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        bundle = Path(self.root, BUNDLE, "package.json")
        if shutil.which("node"):
            super().initialize(version, build_data)
        elif not bundle.exists():
            self.app.display_warning(
                "Node was not found, so llm_magics is built without its JupyterLab extension. Answers are static HTML then, "
                "and approvals are asked by ipywidgets' buttons or by a prompt. To have the extension, install Node 20 or "
                "newer and build again."
            )
        if self.target_name == "wheel" and bundle.exists():
            install = "labextension/install.json"
            build_data["shared_data"] |= {BUNDLE: SHARED, install: f"{SHARED}/install.json"}
