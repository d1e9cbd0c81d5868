"""Damage of known kinds: of bytes, of what JSON, TOML and tables say, of outlines, of what a path leads to.

Damage cuts, flips and zeroes; where a format carries digests, nobody may take the result for the intact file. An *edit*
(of a value, a cell, a column) makes another input that may be as good as the first, so that other results are fine.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe.cli.sections import SECTIONS

ODD: tuple[Any, ...] = (
    *(None, True, "", "x", "é\ud800", [], {}, [[]], -1, 0, 1e300, -1e300, 10**9, 10**400, 0.5, "9" * 400, "\0"),
    *(math.nan, math.inf, "nan", 2**31, 2**63, -(2**31), 1e-300, [0, 0], ["x"], {"x": 1}, "../x", "/", "."),
    [[[0, 0], [1e9, 0], [0, 1e9], [0, 0]]],
)
"""Values that stand where others are expected."""
LITERALS = (
    *("-1", "0", "1", "nan", "inf", "-inf", '"x"', '""', "[]", "{}", "true", "1e300", "99999999999999999999", "0.5"),
    *("[0, 0, 1, 1]", "1979-05-27", "0x7f", '"auto"', '"none"', "1_000"),
)
"""Values in TOML's words."""
WORDS = ("", " ", "x", "auto", "none", "all", ",", "é", "A" * 3000, "/", "1,2,3", "0.2,0.4,0.6")
LABORIOUS = {"workers", "threads", "steps", "epochs", "scheduler", "devices", "engine", "compile", "wait", "size"}
"""Settings that ask for long work, other machines or a compiler; whoever gives them gets what was asked for."""
NAMES = ("-x", "a b'\"$", "\udcff", "a\nb", "%00%s{}", "é" * 60, "x" * 200, "#?&", "[1]", "*")
"""Names of files that somebody has."""
Mutator = Callable[[bytes, random.Random], bytes]
"""From a file's content to another."""


# --- damage of bytes --------------------------------------------------------------------------------------------------


def cut(raw: bytes, rng: random.Random) -> bytes:
    """Lose the end."""
    return raw[: rng.randrange(len(raw))]


def flip(raw: bytes, rng: random.Random) -> bytes:
    """Flip one bit, more often near the ends, where headers and directories are."""
    changed = bytearray(raw)
    changed[_place(raw, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero(raw: bytes, rng: random.Random) -> bytes:
    """Lose a run of bytes to zeros, as a disk does."""
    start, size = _place(raw, rng), rng.choice((1, 16, 512, 4096))
    return raw[:start] + bytes(len(raw[start : start + size])) + raw[start + size :]


def swap(raw: bytes, rng: random.Random) -> bytes:
    """Exchange two words, such as counts and offsets."""
    changed, places = bytearray(raw), [4 * (_place(raw, rng) // 4) for _ in "ab"]
    (a, b), size = places, min(4, len(raw) - max(places))
    changed[a : a + size], changed[b : b + size] = changed[b : b + size], changed[a : a + size]
    return bytes(changed)


def grow(raw: bytes, rng: random.Random) -> bytes:
    """Put an absurd number over four or eight bytes."""
    size, place = rng.choice((4, 8)), _place(raw, rng)
    number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)) % 2 ** (8 * size)
    return raw[:place] + number.to_bytes(size, "little") + raw[place + size :]


def _place(raw: bytes, rng: random.Random) -> int:
    near = rng.choice((0, len(raw) - 1, None))
    if near is None:
        return rng.randrange(len(raw))
    return min(len(raw) - 1, abs(near - int(rng.expovariate(1 / 200))))


# --- edits of texts ---------------------------------------------------------------------------------------------------


def nest(raw: bytes, rng: random.Random) -> bytes:
    """Put brackets without end in front, or in the middle."""
    place = rng.choice((0, rng.randrange(len(raw))))
    return raw[:place] + rng.choice((b"[", b'{"a":', b"a.")) * 50_000 + raw[place:]


def field(raw: bytes, rng: random.Random) -> bytes:
    """Remove a value somewhere in a JSON text, or put an odd one there."""
    content = json.loads(raw)
    where = content
    while isinstance(where, (dict, list)) and where:
        key = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
        if rng.random() < 0.35 or not isinstance(where[key], (dict, list)) or not where[key]:
            if rng.random() < 0.3:
                del where[key]
            else:
                where[key] = rng.choice(ODD)
            break
        where = where[key]
    return json.dumps(content).encode()


def word(raw: bytes, rng: random.Random) -> bytes:
    """Put an odd value in place of a word of a text."""
    words = raw.decode().split(" ") if b" " in raw else raw.decode().split(",")
    words[rng.randrange(len(words))] = str(rng.choice(ODD))
    return (" " if b" " in raw else ",").join(words).encode(errors="surrogatepass")


def setting(raw: bytes, rng: random.Random) -> bytes:
    """Change a key or a value of a TOML text, or move a line to another section."""
    lines = raw.decode().splitlines()
    k = rng.choice([i for i, line in enumerate(lines) if "=" in line])
    key, _, value = lines[k].partition("=")
    what, number = rng.randrange(8), value.strip()
    if what == 0:
        lines.insert(0, lines.pop(k))
    elif what == 1:
        del lines[k]
    elif what < 5 and number.replace(".", "").isdigit():
        scaled = float(number) * rng.choice((0.0, 0.1, 0.5, 0.9, 1.1, 2.0, 100.0))
        lines[k] = f"{key}= {scaled if '.' in number else round(scaled)}"
    elif what == 5:
        lines[k] = f"{rng.choice((key.upper(), key.strip() + '.x ', 'x', key[:-2], chr(34) * 2))}={value}"
    else:
        lines[k] = f"{key}= {rng.choice(LITERALS)}"
    return "\n".join(lines).encode()


def known(raw: bytes, rng: random.Random) -> bytes:
    """Put settings that exist, of the right type, at the ends of their ranges and beyond, into a TOML text."""
    content = tomllib.loads(raw.decode())
    for _ in range(rng.choice((1, 1, 2, 4))):
        section = rng.choice((*(name for name in content if name in SECTIONS), rng.choice(list(SECTIONS))))
        chosen = rng.choice([f for f in dataclasses.fields(SECTIONS[section]) if f.name not in LABORIOUS])
        content.setdefault(section, {})[rng.choice((chosen.name, chosen.name.replace("_", "-")))] = _value(chosen, rng)
    return _toml(content, rng).encode()


def _value(chosen: dataclasses.Field[Any], rng: random.Random) -> Any:
    """Return a value of the type that a setting has."""
    low, high, options = (chosen.metadata.get(key) for key in ("low", "high", "choices"))
    kind = str(chosen.type)
    if "bool" in kind:
        return rng.random() < 0.5
    if "str" in kind:
        return rng.choice(
            (*(options or ()), rng.choice(("", " ", "x", "auto", "none", "all", ",", "é", "A" * 3000, "/")))
        )
    if "tuple" in kind:
        return [rng.choice((0, 1, 150, 10**9)) for _ in range(4)]
    ends = [n for n in (low, high) if n is not None]
    if ends and rng.random() < 0.25:
        ends = [n + step for n in ends for step in (1, -1)]
    middle = [chosen.default] * isinstance(chosen.default, (int, float)) or [0.5]
    number = rng.choice((*ends, *(m * scale for m in middle for scale in (0.5, 1, 1.5))))
    if rng.random() < 0.15:
        number = rng.choice((0, 1, 3, 0.1, 1e-9, 1e9, -1))
    return int(number) if "int" in kind else rng.choice((float(number), number))


def _toml(content: dict[str, Any], rng: random.Random) -> str:
    """Return settings as TOML, in one of the shapes that TOML has for the same tables."""
    tables = {name: table for name, table in content.items() if isinstance(table, dict)}
    lines = [f"{name} = {_word(value)}" for name, value in content.items() if name not in tables]
    names = list(tables)
    rng.shuffle(names)
    shape = rng.choice((*["sections"] * 5, "inline", "dotted", "quoted", "quoted", "list"))
    for name in names if shape in ("inline", "dotted") else ():
        pairs = [f"{key} = {_word(value)}" for key, value in tables[name].items()]
        lines += [f"{name}.{pair}" for pair in pairs] if shape == "dotted" else [f"{name} = {{{', '.join(pairs)}}}"]
    for name in names if shape not in ("inline", "dotted") else ():
        quoted = f'"{name}"' if shape == "quoted" else name
        lines.append(f"[[{quoted}]]" if shape == "list" and name == names[0] else f"[{quoted}]")
        lines += [f"{key} = {_word(value)}" for key, value in tables[name].items()]
    return "\n".join(lines) + "\n"


def _word(value: Any) -> str:
    """Return a value in TOML's words."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"[{', '.join('{' + ', '.join(f'{k} = {_word(v)}' for k, v in one.items()) + '}' for one in value)}]"
    return str(value) if isinstance(value, float) else json.dumps(value)


def cell(raw: bytes, rng: random.Random) -> bytes:
    """Change a cell, a row or the header of a CSV table."""
    rows = [line.split(",") for line in raw.decode().splitlines()]
    row = rng.choice(rows)
    what = rng.randrange(5)
    if what == 0:
        rows.append(list(row))
    elif what == 1:
        row.append(str(rng.choice(ODD)))
    elif what == 2:
        del row[rng.randrange(len(row))]
    else:
        row[rng.randrange(len(row))] = str(rng.choice((*ODD, '"', '"a\nb"', "a;b", "slide*", "nowhere.tiff")))
    return "\n".join(map(",".join, rows)).encode(errors="surrogatepass")


def outline(raw: bytes, rng: random.Random) -> bytes:
    """Replace the outline of a feature by a hostile one."""
    content = json.loads(raw)
    features = content["features"] if isinstance(content, dict) else content
    chosen = rng.choice(features)
    side = rng.choice((1.0, 250.0, 1e6))
    ring = [[rng.uniform(-0.1, 1) * side, rng.uniform(-0.1, 1) * side] for _ in range(rng.choice((1, 2, 3, 40, 1500)))]
    if rng.random() < 0.3:
        ring[0][rng.randrange(2)] = rng.choice((1e300, -1e300, 1e-320, 2**63, None, "1", math.nan, math.inf))
    closed = [*ring, ring[0]]
    chosen["geometry"] = rng.choice(
        (
            {"type": "Polygon", "coordinates": [closed]},
            {"type": "Polygon", "coordinates": [closed, closed]},
            {"type": "Polygon", "coordinates": [ring]},
            {"type": "MultiPolygon", "coordinates": [[closed]] * 3},
            {"type": "Polygon", "coordinates": []},
            {"type": "LineString", "coordinates": ring},
            {"type": "Point", "coordinates": ring[0]},
            {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [closed]}]},
            {"type": "Polygon", "coordinates": [[[*point, 0] for point in closed]]},
        )
    )
    return json.dumps(content).encode()


# --- edits of our own files -------------------------------------------------------------------------------------------


def column(raw: bytes, rng: random.Random) -> bytes:
    """Change a column of a cells file and write it without its digest, as another program would."""
    table = pq.read_table(pa.BufferReader(raw))
    at = rng.randrange(table.num_columns)
    name, values = table.column_names[at], table.column(at)
    what, n = rng.randrange(6), table.num_rows
    if what == 0:
        table = table.drop_columns([name])
    elif what == 1:
        table = table.set_column(at, name, pa.array([None] * n, values.type))
    elif what == 2:
        table = table.rename_columns([*table.column_names[:at], "other", *table.column_names[at + 1 :]])
    elif what == 3:
        odd = rng.choice((pa.array([str(i) for i in range(n)]), pa.array([1.0] * n), pa.array([b"\1"] * n)))
        table = table.set_column(at, name, odd)
    elif what == 4:
        table = table.take(pa.array([rng.randrange(n) for _ in range(rng.choice((0, 1, n)))], pa.int64()))
    else:
        numbers = [c for c in table.column_names if pa.types.is_floating(table.schema.field(c).type)]
        name = rng.choice(numbers)
        list_ = table[name].to_pylist()
        list_[rng.randrange(n)] = rng.choice((math.nan, math.inf, -1.0, 1e30, None, -(10.0**6)))
        table = table.set_column(table.column_names.index(name), name, pa.array(list_, table.schema.field(name).type))
    return _parquet(table, raw)


def about(raw: bytes, rng: random.Random) -> bytes:
    """Change the metadata of a cells file and write it without its digest."""
    return _parquet(pq.read_table(pa.BufferReader(raw)), raw, lambda entry: field(entry, rng))


def _parquet(table: pa.Table, raw: bytes, change: Callable[[bytes], bytes] = bytes) -> bytes:
    stated = pq.read_metadata(pa.BufferReader(raw)).metadata
    entry = json.loads(stated[b"wsipipe"])
    entry.pop("digest")
    sink = pa.BufferOutputStream()
    told = dict(table.schema.metadata or {}) | {b"wsipipe": change(json.dumps(entry).encode())}
    pq.write_table(table.replace_schema_metadata(told), sink)
    return sink.getvalue().to_pybytes()


def card(raw: bytes, rng: random.Random) -> bytes:
    """Change what a model says of itself; its weights and their digest stay."""
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    entry = header["__metadata__"]["wsipipe"].encode()
    header["__metadata__"]["wsipipe"] = field(entry, rng).decode()
    return _safetensors(header, raw[8 + size :])


def tensor(raw: bytes, rng: random.Random) -> bytes:
    """Change name, shape or type of a tensor in a model's header."""
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    name = rng.choice([key for key in header if key != "__metadata__"])
    what = rng.randrange(4)
    if what == 0:
        header[name + "x"] = header.pop(name)
    elif what == 1:
        header[name]["shape"] = header[name]["shape"][::-1] or [0]
    elif what == 2:
        header[name]["dtype"] = rng.choice(("F16", "I32", "U8", "F64", "BOOL", "x"))
    else:
        header[name] = rng.choice(({}, {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}, None))
    return _safetensors(header, raw[8 + size :])


def _safetensors(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


DAMAGE: tuple[Mutator, ...] = (cut, flip, zero, swap)
BYTES: tuple[Mutator, ...] = (*DAMAGE, grow)
TEXT: tuple[Mutator, ...] = (*DAMAGE, nest, word, word)
TOML: tuple[Mutator, ...] = (cut, flip, nest, word, setting, setting, setting, *[known] * 14)
CSV: tuple[Mutator, ...] = (*TEXT, *[cell] * 8)
JSON: tuple[Mutator, ...] = (*TEXT, *[field] * 8)
GEOJSON: tuple[Mutator, ...] = (*JSON, *[outline] * 5)
CELLS: tuple[Mutator, ...] = (*BYTES, column, column, about, about)
STORE: tuple[Mutator, ...] = (*BYTES, *[field] * 5)
MODEL: tuple[Mutator, ...] = (*BYTES, *[card] * 4, tensor, tensor)
EDITS = (nest, word, field, setting, known, cell, outline, column, about, card)
"""What makes another input, perhaps as good as the first."""


# --- what a path leads to ---------------------------------------------------------------------------------------------


def replace(path: Path, rng: random.Random) -> bool:
    """Put something else where a file was: nothing, a folder, a pipe, a link to itself or to nowhere.

    Returns
    -------
    bool
        Whether anything of that name is there now.
    """
    path.unlink()
    what = rng.randrange(6)
    if what == 0:
        path.touch()
    elif what == 1:
        path.mkdir()
    elif what == 2:
        os.mkfifo(path)
    elif what == 3:
        path.symlink_to(path.name)
    elif what == 4:
        path.symlink_to("nowhere")
    return what < 5


def rename(path: Path, rng: random.Random) -> Path:
    """Give a file a name that is hard to handle; its ending stays."""
    ending = "".join(path.suffixes[-2:])
    while True:
        new = path.with_name(rng.choice(NAMES) + ending)
        if len(os.fsencode(new.name)) < 250:
            return path.rename(new)
