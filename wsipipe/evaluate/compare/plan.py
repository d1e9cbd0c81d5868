"""The plan of a comparison: arms × sets × folds × shots × seeds, as data that can be looked at before it is run."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe._version import __version__
from wsipipe.artifacts import digest
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import SettingsError
from wsipipe.labels import DatasetSpec
from wsipipe.settings import AugmentSettings, FitSettings, LoopSettings, determining

METRICS = ("mDice", "PQ")
"""Scores of the tables where a plan names none."""
KEYS = (
    "title", "criterion", "metrics", "seeds", "shots", "resamples", "pairs", "axis", "fit", "loop", "augment", "sets",
    "arms",
)  # fmt: skip
OF_ARM = "name", "predictions", "curve", "at"
"""Keys of an arm that are no settings."""
SECTIONS: dict[str, type[Any]] = {"fit": FitSettings, "loop": LoopSettings, "augment": AugmentSettings}


@dataclass(frozen=True)
class Arm:
    """A system of a comparison.

    Attributes
    ----------
    name : str
    settings : FitSettings
        How it is fitted; ``seed`` and ``shots`` are the cell's.
    predictions : str
        Folder of instance maps that another tool made, a file an image; then nothing is fitted.
    curve : str
        Arms of one curve are joined in the plots over :attr:`at`, in the order of it.
    at : float
        Where on the plan's axis it stands: steps of pretraining, parameters, a rank.
    """

    name: str
    settings: FitSettings
    predictions: str = ""
    curve: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Compared:
    """A set of a comparison.

    Attributes
    ----------
    name : str
    spec : DatasetSpec
        With a split file, unless there are *folds*.
    folds : int
        0: the split; -1: every patient left out once; N: N groups of patients in the order of their names.
    """

    name: str
    spec: DatasetSpec
    folds: int = 0


@dataclass(frozen=True)
class Plan:
    """What is compared with what, and by which criterion it will be judged.

    Attributes
    ----------
    criterion : str
        Written down before anything is run; it heads the tables.
    pairs : tuple of (str, str)
        Arms whose difference is tested.
    axis : str
        What the numbers of arms that form curves are, such as "steps of pretraining".
    """

    title: str
    criterion: str
    arms: tuple[Arm, ...]
    sets: tuple[Compared, ...]
    seeds: tuple[int, ...] = (0,)
    shots: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = METRICS
    pairs: tuple[tuple[str, str], ...] = ()
    resamples: int = 1000
    axis: str = ""


@dataclass(frozen=True)
class Cell:
    """One fit and its scores: an arm on a fold of a set.

    Attributes
    ----------
    test : tuple of str
        Patients that are scored; none where the set's split says.
    train : tuple of str
        Patients that are trained on, likewise.
    """

    arm: Arm
    of: Compared
    fold: int
    shots: int
    seed: int
    test: tuple[str, ...] = ()
    train: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Where it stands in the comparison."""
        parts = [self.arm.name, self.of.name]
        parts += [f"fold {self.fold}"] if self.of.folds else []
        parts += [in_words(self.shots)] if self.shots else []
        return ", ".join([*parts, f"seed {self.seed}"])

    @property
    def settings(self) -> FitSettings:
        """How it is fitted."""
        return dataclasses.replace(self.arm.settings, shots=self.shots, seed=self.seed)

    def key(self, weights: str, images: Sequence[str]) -> str:
        """Return the digest of what its scores follow from; *weights* is that of the backbone's file, if there is one.

        Parameters
        ----------
        images : sequence of str
            Names and sizes of the set's files.
        """
        settings = determining(self.settings) | {
            name: determining(getattr(self.settings, name)) for name in ("loop", "augment")
        }
        asked = {"settings": settings, "predictions": self.arm.predictions, "spec": dataclasses.asdict(self.of.spec)}
        found = {"weights": weights, "images": list(images), "test": self.test, "train": self.train}
        return digest(asked | found | {"version": __version__})[:16]


def in_words(shots: int) -> str:
    """Return a number of annotated images in words."""
    return f"{shots} shot{'s' if shots > 1 else ''}"


@dataclass
class _Reading:
    """A table that is read key by key, so that an error can say where."""

    table: Mapping[str, Any]
    where: str
    seen: set[str] = field(default_factory=set)

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        self.seen.add(key)
        value = self.table.get(key, default)
        if value is None and default is None:
            raise SettingsError(f"{self.where}: no {key!r}; expected one")
        if type(value) is not kind:
            raise SettingsError(f"{self.where} {key}: {value!r}; expected {kind.__name__}")
        return value

    def end(self, known: Collection[str]) -> None:
        for key in self.table:
            if key not in self.seen and key not in known:
                near = difflib.get_close_matches(key, [*known, *self.seen], 1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"
                raise SettingsError(f"{self.where}: unknown key {key!r}; {hint}")


def read_plan(path: Path) -> Plan:
    """Return the plan in the TOML file at *path*.

    Raises
    ------
    SettingsError
        The file is missing, no TOML, or holds what no plan holds; the line says where.
    """
    try:
        said = tomllib.loads(text_of(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); expected a plan, a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not a TOML file ({error})") from error
    top = _Reading(said, str(path))
    top.end(KEYS)
    common = {name: top.take(name, dict, {}) for name in SECTIONS}
    arms = tuple(_arm(one, f"{path} [[arms]]", common) for one in _tables(top, "arms"))
    sets = tuple(_set(one, f"{path} [[sets]]", path.parent) for one in _tables(top, "sets"))
    for what, names in (("arms", [a.name for a in arms]), ("sets", [s.name for s in sets])):
        if len(set(names)) < len(names):
            raise SettingsError(f"{path} [[{what}]]: two have one name; expected different ones")
    plan = Plan(
        title=top.take("title", str),
        criterion=top.take("criterion", str),
        arms=arms,
        sets=sets,
        seeds=_whole(top, "seeds", [0]),
        shots=_whole(top, "shots", [0]),
        metrics=tuple(top.take("metrics", list, list(METRICS))),
        pairs=tuple((str(a), str(b)) for a, b in _pairs(top)),
        resamples=top.take("resamples", int, 1000),
        axis=top.take("axis", str, ""),
    )
    known = {arm.name for arm in arms}
    if wrong := [name for pair in plan.pairs for name in pair if name not in known]:
        raise SettingsError(f"{path} pairs: no arm {wrong[0]!r}; expected names of [[arms]]")
    if not plan.criterion.strip():
        raise SettingsError(
            f"{path}: the criterion is empty; write down how the result will be judged before it is run"
        )
    return plan


def _tables(top: _Reading, name: str) -> list[Mapping[str, Any]]:
    tables: list[Mapping[str, Any]] = top.take(name, list)
    if not tables or not all(isinstance(one, dict) for one in tables):
        raise SettingsError(f"{top.where}: no [[{name}]]; expected at least one")
    return tables


def _pairs(top: _Reading) -> list[list[str]]:
    pairs: list[list[str]] = top.take("pairs", list, [])
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise SettingsError(f'{top.where} pairs: {pairs!r}; expected pairs of arms, as in [["a", "b"]]')
    return pairs


def _whole(top: _Reading, name: str, default: list[int]) -> tuple[int, ...]:
    values = top.take(name, list, default)
    if not values or not all(type(value) is int and value >= 0 for value in values):
        raise SettingsError(f"{top.where} {name}: {values!r}; expected whole numbers from 0")
    return tuple(values)


def _arm(said: Mapping[str, Any], where: str, common: Mapping[str, Mapping[str, Any]]) -> Arm:
    one = _Reading(said, where)
    name, predictions, curve = one.take("name", str), one.take("predictions", str, ""), one.take("curve", str, "")
    at = said.get("at", 0)
    if type(at) not in (int, float) or at < 0 or bool(curve) != bool(at):
        raise SettingsError(
            f"{where} {name}: curve {curve!r} at {at!r}; expected a name and a number above 0, or neither"
        )
    own = {k: v for k, v in said.items() if k not in OF_ARM}
    parts = {}
    for section, cls in SECTIONS.items():
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in SECTIONS}
        given = {**common[section], **{k: v for k, v in own.items() if k in fields}}
        one.seen.update(fields)
        _Reading(common[section], f"[{section}]").end(fields)
        parts[section] = {k: _value(v, fields[k], f"{where} {name}: {k}") for k, v in given.items()}
    one.end(OF_ARM)
    try:
        loop, augment = LoopSettings(**parts["loop"]), AugmentSettings(**parts["augment"])
        settings = FitSettings(**{**parts["fit"], "loop": loop, "augment": augment, "name": name})
    except SettingsError as error:
        raise SettingsError(f"{where} {name}: {error}") from error
    return Arm(name, settings, predictions, curve, float(at))


def _value(value: Any, setting: dataclasses.Field[Any], where: str) -> Any:
    """Return *value* when it is of the kind of the default of *setting*."""
    kind = type(setting.default)
    if kind is float and type(value) is int:
        return float(value)
    if setting.default is not None and type(value) is not kind:
        raise SettingsError(f"{where} is {value!r}; expected {kind.__name__}")
    return value


def _set(said: Mapping[str, Any], where: str, beside: Path) -> Compared:
    one = _Reading(said, where)
    name, folds = one.take("name", str), said.get("folds", 0)
    one.seen.add("folds")
    folds = -1 if folds == "patient" else folds
    if type(folds) is not int or folds < -1 or folds == 1:
        raise SettingsError(f'{where} {name}: folds is {folds!r}; expected "patient", or a number from 2')
    fields = {f.name for f in dataclasses.fields(DatasetSpec)}
    one.end(fields)
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k in fields}
    if "path" not in given:
        raise SettingsError(f"{where} {name}: no 'path'; expected one")
    if (split := given.get("split")) and (beside / split).is_file():
        given["split"] = str((beside / split).resolve())
    if not folds and not split:
        raise SettingsError(f"{where} {name}: neither split nor folds; expected one, so that test images stay apart")
    return Compared(name, DatasetSpec(**given), folds)
