"""JSON in one canonical form, to hash it: keys sorted, no white space, characters as themselves, UTF-8."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Write a value in the canonical form; a part that is not JSON as its ``repr``."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=repr)


def hash_of(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode(errors="surrogatepass")).hexdigest()
