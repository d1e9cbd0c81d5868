"""What a user says of weights, in a TOML file beside them: ``net.pt`` has ``net.toml``, a folder ``wsipipe.toml``.

::

    mpp = 0.25                        # µm/px
    tile = 512
    context = 96
    max_diameter_um = 24.0
    percentiles = [1.0, 99.8]
    types = ["tumour", "other"]
    licence = "CC-BY-4.0"
    min_area_um2 = 6.0

    [options]                         # what the plug-in itself takes
    output = "hovernet"
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsipipe.errors import ModelError, NotAModel
from wsipipe.models.card import RULES
from wsipipe.models.checks import expect, many, number, whole
from wsipipe.plugins.protocol import About, Looks

LOOKS = tuple(known.name for known in dataclasses.fields(Looks))
RULED = ("min_area_um2", "min_probability", "min_type_probability")
TESTS = {
    "mpp": (number(0.05, 5), "0.05 to 5 µm/px"),
    "tile": (whole(64, 8192), "64 to 8192 px"),
    "context": (whole(0, 2048), "0 to 2048 px"),
    "max_diameter_um": (number(1, 1000), "1 to 1000 µm"),
    "percentiles": (many(number(0, 100), 2), "two numbers from 0 to 100"),
    **{name: (number(*RULES[name]), "{:g} to {:g}".format(*RULES[name])) for name in RULED},
    "licence": (lambda value: isinstance(value, str), "text"),
    "types": (many(lambda value: isinstance(value, str) and value != ""), "names"),
    "options": (lambda value: isinstance(value, dict), "a table"),
}
"""What may stand in the file."""


@dataclass(frozen=True)
class Said:
    """What the file says; empty where there is none.

    Attributes
    ----------
    path : Path
        Where it is, or would be.
    values : dict
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    def about(self, version: str, looks: Looks, types: tuple[str, ...] = (), licence: str = "unknown") -> About:
        """Return what a plug-in says of itself, with what the file says in its place."""
        mine = {name: self.values[name] for name in LOOKS if name in self.values}
        if "percentiles" in mine:
            mine["percentiles"] = tuple(mine["percentiles"])
        about = About(version, replace(looks, **mine), types, licence)
        rules = {name: self.values[name] for name in RULED if name in self.values}
        if "types" in self.values:
            types = tuple(self.values["types"])
        return replace(
            about,
            types=types,
            licence=self.values.get("licence", licence),
            rules=replace(about.rules, max_diameter_um=about.looks.max_diameter_um, **rules),
        )

    def options(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return the plug-in's own options: *defaults*, with what the file says in their place.

        Raises
        ------
        NotAModel
            One is unknown, or of another kind than its default.
        """
        given = self.values.get("options", {})
        try:
            for name, value in given.items():
                expect(name in defaults, "option", name, f"one of {', '.join(defaults) or 'none'}")
                kind = type(defaults[name])
                good = isinstance(value, kind) or (kind is float and type(value) is int) or defaults[name] is None
                expect(good, f"option {name}", value, f"as {defaults[name]!r}")
        except ValueError as error:
            raise NotAModel(f"{self.path}: {error}") from error
        return {**defaults, **given}

    def need(self, *names: str) -> None:
        """Raise NotAModel unless the file says these.

        Raises
        ------
        NotAModel
        """
        if missing := [name for name in names if name not in self.values]:
            raise NotAModel(
                f"{self.path} must say {' and '.join(missing)} of the weights beside it, as in {missing[0]} = "
                f"{EXAMPLES[missing[0]]} (see the page on other networks)"
            )


EXAMPLES = {"mpp": "0.25", "types": '["tumour", "other"]'}


def read_said(weights: Path) -> Said:
    """Return what stands beside *weights*, a file or folder.

    Raises
    ------
    NotAModel
        When that is no TOML, or says what nobody asked for.
    """
    path = weights / "wsipipe.toml" if weights.is_dir() else weights.with_suffix(".toml")
    if not path.is_file():
        return Said(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            expect(name in TESTS, "entry", name, f"one of {', '.join(TESTS)}")
            test, wanted = TESTS[name]
            expect(test(value), name, value, wanted)
        types = values.get("types", [])
        expect(len(set(types)) == len(types), "types", types, "names, each once")
    except (ValueError, OSError) as error:
        raise NotAModel(f"{path}: {error}") from error
    return Said(path, values)


def refuse(weights: Path, why: object, wanted: str) -> ModelError:
    """Return the error for *weights* that a library does not load."""
    said = str(why).strip().splitlines() or [type(why).__name__]
    return NotAModel(f"{weights}: cannot be loaded ({said[0][:200]}); expected {wanted}")
