"""Command-line options, built from the settings dataclasses.

A knob's default, unit, range and help are written once, in :mod:`wsipipe.settings`. Here they become options
(:func:`options_for`), keys of ``--config run.toml`` (:func:`config_option`), and again a settings object
(:func:`collect`). What is given on the command line wins over the config file, which wins over the default.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from wsipipe.artifacts.plain import text_of
from wsipipe.cli.sections import SECTIONS as SECTIONS
from wsipipe.cli.slips import outside, unknown
from wsipipe.cli.types import BoxType
from wsipipe.errors import SettingsError

CONFIG_CHARS, CONFIG_LINE = 1_000_000, 10_000
"""Characters of a file of settings, and of one line of it: the parser takes gigabytes for a key of 50,000 parts."""
MODEL = "Shipped model, a .safetensors file, or another network: stardist:FOLDER, cellpose:FILE, onnx:FILE, ..."
METAVARS = {int: "INT", float: "NUMBER", str: "TEXT"}
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    bool: "true or false",
    tuple: "four whole numbers [x0, y0, x1, y1]",
}

Settings = TypeVar("Settings")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Config:
    """What a ``run.toml`` says: values by section and key, already checked one by one."""

    path: str = ""
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    datasets: tuple[Mapping[str, Any], ...] = ()


class SettingOption(click.Option):
    """An option that belongs to a settings class, under whose heading ``--help`` lists it."""

    def __init__(self, *args: Any, heading: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return name and help; of ``--flag / --no-flag`` only the first."""
        record = super().get_help_record(ctx)
        return record and (record[0].split(" / --no-")[0], record[1])


class Command(click.Command):
    """A command whose ``--help`` groups the options by settings class, and that reads no named pipes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, unless it was given a named pipe, which may never say anything.

        Raises
        ------
        SettingsError
        """
        for name, given in ctx.params.items():
            for value in given if isinstance(given, tuple) else (given,):
                if isinstance(value, str | Path) and _is_named_pipe(value):
                    raise SettingsError(f"{name} {str(value)!r} is a named pipe; expected a file, so write it to one")
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options per heading, the command's own options first."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and record[1]:
                heading = "Arguments" if isinstance(param, click.Argument) else getattr(param, "heading", "Options")
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=34)


def _is_named_pipe(value: str | Path) -> bool:
    """Tell whether *value* names a pipe in a folder; one of the shell's own, as ``<(...)``, is none."""
    try:
        return not str(value).startswith(("/dev/", "/proc/")) and stat.S_ISFIFO(os.stat(value).st_mode)
    except (OSError, ValueError):
        return False


def options_for(*classes: type[Any], exclude: Iterable[str] = ()) -> Callable[[Function], Function]:
    """Return a decorator that adds an option for every field of the settings *classes*, save those in *exclude*.

    An option that is not given arrives as ``None`` in the command function; :func:`collect` fills in the rest.
    """
    skipped = frozenset(exclude)
    decorators = [_option(cls, f) for cls in classes for f in dataclasses.fields(cls) if f.name not in skipped]

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def collect(cls: type[Settings], options: Mapping[str, Any], config: Config | None = None) -> Settings:
    """Return the settings object of class *cls* from command-line *options*, then *config*, then defaults.

    Parameters
    ----------
    cls : type
        A settings dataclass.
    options : mapping
        Keyword arguments of a command decorated with :func:`options_for`; ``None`` means not given, other keys are
        left alone.
    config : Config, optional
        What ``--config`` names.

    Raises
    ------
    SettingsError
        When a value is out of range; the line names the option or the config key.
    """
    names = [f.name for f in dataclasses.fields(typing.cast(Any, cls))]
    given = {name: options[name] for name in names if options.get(name) is not None}
    for name, value in given.items():
        _check_alone(cls, name, value, _flag(name))
    configured = config.sections.get(_section(cls), {}) if config else {}
    return cls(**{**configured, **given})


def read_config(path: str | Path) -> Config:
    """Return the checked content of a TOML file of settings, one section per settings class.

    Raises
    ------
    SettingsError
        When the file is missing, not TOML, or holds an unknown section or key or a value out of range.
    """
    try:
        text = text_of(path)
        if len(text) > CONFIG_CHARS or max(map(len, text.splitlines()), default=0) > CONFIG_LINE:
            raise SettingsError(f"--config {path}: {len(text):,} characters; expected settings in short lines")
        content = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"--config {path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: dates and numbers are parsed by others
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"--config {path}: not a TOML file ({error})") from error
    sections, datasets = {}, content.pop("datasets", [])
    if not isinstance(datasets, list) or not all(isinstance(entry, dict) for entry in datasets):
        raise SettingsError(
            f"{path}: datasets is {str(datasets)[:60]}; expected [[datasets]], and a set's keys below it"
        )
    for name, table in content.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {outside(name, SECTIONS)}")
        if name not in SECTIONS:
            raise SettingsError(f"{path}: {unknown('section', name, SECTIONS)}")
        sections[name] = _read_section(SECTIONS[name], table, f"{path} [{name}]")
    return Config(str(path), sections, tuple(datasets))


def config_option(function: Function) -> Function:
    """Add ``--config FILE``; the command receives a :class:`Config` named ``config`` (an empty one if not given)."""

    def read(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Config:
        return Config() if value is None else read_config(value)

    text = f"TOML file of settings, in sections {', '.join(f'[{name}]' for name in SECTIONS)}."
    return click.option("--config", metavar="FILE", callback=read, help=text)(function)


def _option(cls: type[Any], setting: dataclasses.Field[Any]) -> Callable[[Function], Function]:
    kind, flag = _type(cls, setting.name), _flag(setting.name)
    choices: Collection[str] = setting.metadata.get("choices", ())
    return click.option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        setting.name,
        type=click.Choice(list(choices)) if choices else BoxType() if kind is tuple else kind,
        metavar=None if choices or kind in (bool, tuple) else METAVARS[kind],
        default=None,
        help=_help(setting, kind),
        cls=SettingOption,
        heading=_heading(cls),
    )


def _help(setting: dataclasses.Field[Any], kind: type[Any]) -> str:
    """Return the help text, then default, range and unit in brackets."""
    meta, unit = setting.metadata, setting.metadata.get("unit", "")
    notes = []
    if kind is bool:
        notes += ["default: on"] if setting.default else []
    elif setting.default is not None:
        notes.append(f"default: {_plain(setting.default)}")
    low, high = meta.get("low"), meta.get("high")
    if high is not None:
        notes.append(f"{_plain(low)} to {_plain(high)}" if low is not None else f"at most {_plain(high)}")
    elif low and low >= 0.01:
        notes.append(f"at least {_plain(low)}")
    text = "; ".join(notes)
    text = f"{text} {unit}".strip()
    return f"{meta.get('help', '')}  [{text}]" if text else str(meta.get("help", ""))


def _plain(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _heading(cls: type[Any]) -> str:
    """Return the first sentence of the class's docstring, as a heading."""
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0].split(". ")[0].rstrip(".")


def _type(cls: type[Any], name: str) -> type[Any]:
    """Return the plain type of a field: ``float`` for ``float | None``, ``tuple`` for a box."""
    hint = typing.get_type_hints(cls)[name]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return typing.cast(type[Any], typing.get_origin(hint) or hint)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _section(cls: type[Any]) -> str:
    return next((name for name, known in SECTIONS.items() if known is cls), "")


def _read_section(cls: type[Any], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(cls) if not dataclasses.is_dataclass(_type(cls, f.name))]
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            raise SettingsError(f"{where}: {unknown('key', key, names)}")
        values[name] = _convert(value, _type(cls, name), f"{where} {key}")
        _check_alone(cls, name, values[name], f"{where} {key}")
    return values


def _convert(value: Any, kind: type[Any], where: str) -> Any:
    """Return a TOML *value* as *kind*; a whole number is a fine float and a list of four a box."""
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and type(value) is list and [type(number) for number in value] == [int] * 4:
        return tuple(value)
    if type(value) is not kind:
        raise SettingsError(f"{where} is {value!r}; expected {WORDS[kind]}")
    return value


def _check_alone(cls: type[Any], name: str, value: Any, where: str) -> None:
    """Check one value by itself, so that the error can say where it was given."""
    try:
        cls(**{name: value})
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
