"""The key of a server. It is read from the environment at each request, and lives no longer.

It must stand in no error, not even by way of a library: h11 and httpx quote a header's value when it cannot be sent, so what
cannot be sent is refused here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from llm_magics.errors import OptionError

_SENDABLE = re.compile(r"[!-~]+")  # visible ASCII
_MASK = "•••"
_LEAST = 6  # characters of a key that is masked: shorter ones are placeholders, and stand in ordinary text


@dataclass(frozen=True, slots=True)
class Key:
    """Says where the key is; holds no key. An empty ``variable`` is no key."""

    variable: str = ""

    def check(self) -> None:
        """Raise OptionError if the variable cannot give a key."""
        if not self.variable:
            return
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.variable):  # perhaps the key itself, so it is not repeated
            what = "--api-key-env (api_key_env in Python) takes the name of an environment variable, not a key."
            raise OptionError(what, "E.g. --api-key-env LAB_KEY. A key that was typed into a notebook should be replaced.")
        if not os.environ.get(self.variable, "").strip():
            how = f"Set it before Jupyter starts, or: import os, getpass; os.environ[{self.variable!r}] = getpass.getpass()"
            raise OptionError(f"The environment variable {self.variable} holds no key.", how)
        if not _SENDABLE.fullmatch(os.environ[self.variable].strip()):
            what = f"The key in {self.variable} cannot be sent: it has blanks, line breaks or letters outside of ASCII."
            raise OptionError(what, "Copy it again.")

    def headers(self) -> dict[str, str]:
        """The header to send; call :meth:`check` before."""
        return {"authorization": f"Bearer {os.environ[self.variable].strip()}"} if self.variable else {}

    def masked(self, text: str) -> str:
        """The text with the key masked, should the server repeat it."""
        held = os.environ.get(self.variable, "").strip() if self.variable else ""
        return text.replace(held, _MASK) if len(held) >= _LEAST else text

    def masked_bytes(self, data: bytes) -> bytes:
        """The same for what comes over the wire, as far as it comes in one piece."""
        held = os.environ.get(self.variable, "").strip().encode() if self.variable else b""
        return data.replace(held, _MASK.encode()) if len(held) >= _LEAST else data
