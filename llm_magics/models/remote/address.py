"""The address of a server, e.g. ``http://localhost:8080/v1``: what it may hold, and what it is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from llm_magics.errors import OptionError

_URL = re.compile(r"https?://", re.IGNORECASE)
_FILE = re.compile(r"https?://(?:huggingface\.co|hf\.co)/|.*\.gguf(?:[?#].*)?$", re.IGNORECASE)  # a model to fetch
_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # e.g. "gpu-3.lab.example", "::1"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. ``base`` is what ``/chat/completions`` is appended to."""

    base: str
    scheme: str
    host: str
    port: int

    @property
    def names(self) -> tuple[str, str]:
        """What a rule may match: the host, and the host with its port."""
        return self.host, f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        import ipaddress  # not for %load_ext, which reads no address

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def root(self) -> str:
        """The address without ``/v1``, where llama-server describes itself."""
        return self.base.removesuffix("/v1")


def is_address(name: object) -> bool:
    """Whether a model's name is the address of a server, and not of a file to fetch."""
    return isinstance(name, str) and bool(_URL.match(name)) and not _FILE.match(name)


def read_address(text: str) -> Address:
    """Read a server's address. Raises OptionError, which never repeats a password, for one that cannot be used."""
    example = "Write it like http://localhost:8080/v1."
    try:
        parts = urlsplit(text.strip())
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise OptionError("The server's address cannot be read.", example) from None
    if "@" in parts.netloc:
        what = "The server's address holds a user name or a password, which the notebook would keep."
        raise OptionError(what, "Put the key into an environment variable, and name it: --api-key-env NAME.")
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise OptionError("The server's address cannot be read.", example)
    if parts.query or parts.fragment:
        what = "The server's address has a query or a fragment (? or #), where keys are often put."
        raise OptionError(what, f"{example} Keys belong into an environment variable: --api-key-env NAME.")
    path = re.sub(r"/(?:chat/completions|models)?/*$", "", parts.path)
    shown = f"[{host}]" if ":" in host else host
    at = "" if parts.port is None else f":{port}"
    return Address(f"{parts.scheme}://{shown}{at}{path}", parts.scheme, host, port)
