"""Change valid input: at a random place, by its structure or by its bytes. Everything is decided by the generator."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

#: Takes the place of a value in JSON; `_DEEP` is replaced in the text, since it is too deep to be written by `json`.
_DEEP = "@deep@"
_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, True, None, 255, 2**31, 2**32 - 1, 2**63, -(2**63), 2**64, 10**18, 10**30, 10**4000),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf")),
    *("", "x", "../../x", "/etc/passwd", "\x1b[31m\n", "é" * 1000, "x" * 10_000, "9" * 5000, "0x" + "f" * 100, _DEEP),
    *("\ud800", "a\0b", "/", ".", "..", "0", "1e400", "-1", "none", "[1, 2]", "x,y", "\u202e", "0/zarr.json"),
    *(
        [],
        {},
        [[]],
        [1],
        [[1, 0], [0, 1]],
        {"name": "x"},
        {"type": "scale", "scale": [1]},
        [0] * 1000,
        [10**6] * 3,
        [0, 0, 0],
        [-1, -1, -1],
        {"a": 1},
        [None],
        ["x"],
    ),
)
_WORDS = (
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"none",
    b"(1,0,0)",
    b"99999999999999999999",
    b"9" * 5000,
    b"",
    b"\xff",
    b'"',
    b"1",
    b"-0.0",
    b"1e308",
    b"1e-320",
    b"0x10",
    b"1_0",
    b"inf",
    b"LIST",
    b"..",
    b"/dev/zero",
    b"%d",
    b"\x1b[31m",
    b"\0",
    b"\xed\xa0\x80",
    b"'",
    b"#",
    b"()",
    b"[]",
    b"4",
    b"None",
    b"True",
    b"2147483648",
)
#: How often a part is repeated up to a size, in bytes.
LONG, _LARGEST = 0.03, 2**20
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def change_bytes(body: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, remove, repeat or insert bytes, up to four times; half of the time near the beginning."""
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 400)
        at, length = rng.randrange(end + 1), rng.choice((1, 2, 4, 8, 100, 4000))
        kind = rng.randrange(7)
        if rng.random() < LONG:  # shows what takes longer than its length
            part = changed[at : at + length] or b" "
            changed[at:at] = part * (_LARGEST // len(part))
        elif kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            number = rng.choice(_NUMBERS).to_bytes(8, rng.choice(("little", "big")))
            changed[at : at + length] = number[: min(length, 8)]
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at:at] = rng.randbytes(length)
        elif kind == 5:
            changed[at : at + length] = rng.randbytes(length)
        else:
            del changed[at:]
    return bytes(changed)


def change_text(body: bytes, rng: random.Random) -> bytes:
    """Change a word or a line of the first 4 kB, which may be followed by binary data."""
    head, rest = body[:4096], body[4096:]
    lines = head.split(b"\n")
    k = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[k]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[k])
    elif kind == 2:
        lines[k] = lines[k] * rng.choice((2, 1000))
    else:
        words = re.findall(rb"[^\s,;:|]+", lines[k])
        if words:
            word, new = rng.choice(words), rng.choice(_WORDS)
            if rng.random() < LONG:
                new = (new or b" ") * (_LARGEST // len(new or b" "))
            lines[k] = lines[k].replace(word, new, 1)
    return b"\n".join(lines) + rest


def change_json(body: bytes, rng: random.Random) -> bytes:
    """Replace, remove or repeat a value of a JSON document."""
    document = json.loads(body)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(document))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict) and rng.random() < LONG:
            holder.update({f"{key}{n}": n for n in range(100_000)})
            break  # to repeat it once more would take gigabytes
        elif kind == 1 and isinstance(holder, list):
            holder[key:key] = [holder[key]] * rng.choice((1, 1000))
            break
        elif kind == 2 and len(places) > 1:
            other, name = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[name]))
        else:
            holder[key] = copy.deepcopy(rng.choice(_VALUES))
    return json.dumps(document).replace(f'"{_DEEP}"', "[" * 5000 + "]" * 5000).encode()


def change_ledger(body: bytes, rng: random.Random) -> bytes:
    """Change the content of a line, and seal it again."""
    from atlaszarr.engine.ledger import digest

    lines = body.removesuffix(b"\n").split(b"\n")
    k = rng.randrange(len(lines))
    _, _, rest = lines[k].partition(b', "content": ')
    content = change_json(rest[:-1], rng)
    lines[k] = b'{"check": "%b", "content": %b}' % (digest(content).encode(), content)
    return b"\n".join((*lines, b""))


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value, as its list or object and its key."""
    pending = [document]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict | list):
            for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
                yield holder, key
                pending.append(holder[key])


#: A way to change a file by its name; all names are also changed by their bytes.
STRUCTURED: tuple[tuple[str, Callable[[bytes, random.Random], bytes]], ...] = (
    (r"ledger\.jsonl$", change_ledger),
    (r"\.json$|\.zarray$|\.zattrs$|\.zgroup$", change_json),
    (r"\.(nrrd|nhdr|mhd|mha|csv|npy|txt|label)$", change_text),
)


def change(name: str, body: bytes, rng: random.Random) -> bytes:
    """Change the content of a file."""
    for pattern, structured in STRUCTURED:
        if re.search(pattern, name) and rng.random() < 0.7:
            try:
                return structured(body, rng)
            except (ValueError, RecursionError):  # not what its name says, or too deep
                break
    return change_bytes(body, rng)
