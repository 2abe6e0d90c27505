"""Files that somebody, or a dying disk, has changed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    None, True, 0, -1, 1, 10**9, 10**18, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "x", "../../x",
    "T" * 1000, "0" * 64, "\x1b[2J", "\ud800", [], [[]], [10**9] * 3, ["a"] * 50, {}, {"name": "os.system"},
]  # fmt: skip
PIECES = [b"", b"\0", b"\xff" * 8, b"9" * 30, b"-", b"null", b"1e999", b'"', *b"[ { } ]".split(), b"\x7f" * 4, b"../"]


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """Some bytes flipped, cut out, doubled, moved or replaced."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        at = draw.randrange(len(out) + 1)
        length = draw.choice((0, 1, 1, 2, 4, 8, 64, len(out)))
        kind = draw.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[at : at + length]
        elif kind == 2:
            out[at:at] = out[at : at + length]
        elif kind == 3:
            out[at : at + length] = draw.randbytes(length)
        elif kind == 4:
            out[at : at + draw.choice((0, 1, 4))] = draw.choice(PIECES)
        else:
            start = draw.randrange(len(out) + 1)
            out[at : at + length] = out[start : start + length]
    return bytes(out[: 2 * len(data) + 1000])


def json_of(value: Any, draw: random.Random) -> Any:
    """One value somewhere replaced, removed, doubled or renamed."""
    changed = json.loads(json.dumps(value))
    part = changed
    while True:
        keys: list[Any] = list(part) if isinstance(part, dict) else list(range(len(part)))
        if not keys:
            return changed
        key = draw.choice(keys)
        if isinstance(part[key], dict | list) and part[key] and draw.random() < 0.8:
            part = part[key]
            continue
        kind = draw.randrange(6)
        if kind == 0:
            del part[key]
        elif kind == 1 and isinstance(part, list):
            part.insert(0, part[key])
        elif kind == 1:
            part[str(draw.choice(VALUES))] = part.pop(key)
        elif kind == 2 and isinstance(part[key], int):
            part[key] += draw.choice((-1, 1, 2**31, 2**63))
        else:
            part[key] = draw.choice(VALUES)
        return changed


def file_of(path: Path, draw: random.Random) -> bytes:
    """A file's bytes, or of JSON its values, mutated."""
    data, lines = path.read_bytes(), path.suffix == ".jsonl"
    if not path.suffix.startswith(".json") or draw.random() < 0.3:
        return bytes_of(data, draw)
    parts = data.splitlines() if lines else [data]
    at = draw.randrange(len(parts))
    parts[at] = json.dumps(json_of(json.loads(parts[at]), draw)).encode()
    return b"\n".join([*parts, b""] if lines else parts)
