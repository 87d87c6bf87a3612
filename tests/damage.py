"""Ways to damage a file of tensors: bytes, header, and what it says of itself; each by a seeded random generator."""

import json
from hashlib import sha256
from random import Random
from typing import Any

WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    1 << 70,
    "",
    "x",
    "\ud800",
    "é" * 99,
    [],
    {},
    [0],
    [[]],
]
WRONG += [
    {"kind": "x"},
    {"a": [1, 2]},
    ["a", "a"],
    [1 << 40, 1 << 40],
    [-1],
    [2.0],
    "F32",
    "I64",
    "../../etc",
    "\x1b[31m",
]


def parts(raw: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def joined(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def bytes_changed(raw: bytes, random: Random) -> bytes:
    own = bytearray(raw)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        own[random.randrange(len(own))] = random.randrange(256)
    return bytes(own)


def bit_flipped(raw: bytes, random: Random) -> bytes:
    place = random.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ (1 << random.randrange(8))]) + raw[place + 1 :]


def cut(raw: bytes, random: Random) -> bytes:
    return raw[: random.randrange(len(raw))]


def longer(raw: bytes, random: Random) -> bytes:
    return raw + random.randbytes(random.choice((1, 8, 999)))


def spliced(raw: bytes, random: Random) -> bytes:
    a, b, c = sorted(random.randrange(len(raw)) for _ in range(3))
    return raw[:b] + raw[a:b] + raw[b:] if random.random() < 0.5 else raw[:a] + raw[b:c] + raw[a:b] + raw[c:]


def length_changed(raw: bytes, random: Random) -> bytes:
    size = random.choice((0, 1, random.randrange(1 << 16), len(raw), 1 << 40, (1 << 64) - 1))
    return size.to_bytes(8, "little") + raw[8:]


def header_changed(raw: bytes, random: Random) -> bytes:
    header, data = parts(raw)
    return joined(changed(header, random), data)


def renamed(raw: bytes, random: Random) -> bytes:
    header, data = parts(raw)
    names = [n for n in header if n != "__metadata__"]
    one = random.choice(names)
    if random.random() < 0.5:
        other = random.choice(names)
        header[one], header[other] = header[other], header[one]
    else:
        header[random.choice((one + "x", one[:-1], "0." + one, one.replace(".", ".0."), ""))] = header.pop(one)
    return joined(header, data)


def said_changed(raw: bytes, random: Random) -> bytes:
    header, data = parts(raw)
    metadata = header["__metadata__"]
    entry = next(n for n in metadata if n != "sha256")
    said = json.loads(metadata[entry])
    metadata[entry] = json.dumps(changed(said, random))
    return joined(header, data)


def said_changed_and_sealed(raw: bytes, random: Random) -> bytes:
    """Change what a file says, and its seal with it: right or refused, by what it says."""
    header, data = parts(said_changed(raw, random))
    metadata = header["__metadata__"]
    entry = next(n for n in metadata if n != "sha256")
    if "sha256" in metadata:
        metadata["sha256"] = sha256(metadata[entry].encode()).hexdigest()
    return joined(header, data)


def changed(values: Any, random: Random) -> Any:
    """Change one thing somewhere in JSON values."""
    if isinstance(values, dict) and values and random.random() < 0.9:
        key, own = random.choice(list(values)), dict(values)
        kind = random.random()
        if kind < 0.1:
            del own[key]
        elif kind < 0.2:
            own[random.choice((key + "x", "", "kind"))] = own.pop(key)
        else:
            own[key] = changed(own[key], random)
        return own
    if isinstance(values, list) and values and random.random() < 0.9:
        place = random.randrange(len(values))
        return [changed(v, random) if i == place else v for i, v in enumerate(values)]
    if isinstance(values, int | float) and random.random() < 0.5:
        return random.choice((values + 1, values - 1, -values, values * 2, float(values), str(values)))
    return random.choice(WRONG)


SEALED = (bytes_changed, bit_flipped, cut, longer, spliced, length_changed, header_changed, renamed, said_changed)
EVERY = (*SEALED, said_changed_and_sealed)
