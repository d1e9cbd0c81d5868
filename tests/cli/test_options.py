"""Options and ``run.toml`` are built from the settings dataclasses."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.conftest import needs_pipes
from wsipipe.cli.main import main
from wsipipe.cli.options import SECTIONS, Command, Config, collect, config_option, options_for, read_config
from wsipipe.cli.types import BoxType
from wsipipe.errors import SettingsError
from wsipipe.settings import CellSettings, GridSettings, PhantomSettings, RunSettings, SlideSettings, TissueSettings

CLASSES = (SlideSettings, TissueSettings, GridSettings, CellSettings, RunSettings)


@click.command(cls=Command)
@click.argument("slide")
@click.option("--bounds", type=BoxType(), help="A box.")
@config_option
@options_for(*CLASSES, exclude=["scene"])
def command(slide: str, bounds: tuple[int, ...] | None, config: Config, **options: object) -> None:
    """Do."""
    for cls in CLASSES:
        click.echo(collect(cls, options, config))
    click.echo(f"{slide} {bounds}")


def invoke(*args: str) -> str:
    done = CliRunner().invoke(command, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_nothing_given_is_the_default() -> None:
    assert invoke("a.svs").splitlines() == [*(str(cls()) for cls in CLASSES), "a.svs None"]


def test_every_field_is_an_option() -> None:
    flags = {option for param in command.params for option in param.opts}
    expected = {f"--{f.name.replace('_', '-')}" for cls in CLASSES for f in dataclasses.fields(cls)}
    assert expected - flags == {"--scene"}


def test_help_says_default_range_and_unit() -> None:
    text = " ".join(invoke("--help").split())
    assert "Overlap of neighbouring 256 px tiles. [default: 16; 0 to 128 px]" in text
    assert "Working resolution; default: what the model was trained at. [0.05 to 5 µm/px]" in text
    assert "[default: 20000 µm²]" in text
    assert "--strict-mpp Refuse" in text
    assert "[auto|fp32|bf16]" in text
    assert "How tissue is told from glass: --tissue TEXT" in text


def test_values_arrive_typed() -> None:
    out = invoke("a.svs", "--mpp", "0.25", "--overlap", "128", "--strict-mpp", "--bounds", "0,0,10,20")
    assert str(SlideSettings(mpp=0.25, strict_mpp=True)) in out
    assert str(GridSettings(overlap=128)) in out
    assert "a.svs (0, 0, 10, 20)" in out


def test_command_line_beats_config_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[slide]\nmpp = 1\nstrict_mpp = true\n[grid]\noverlap = 32\n[run]\nmax-bad-tiles = 0.5\n")
    config = read_config(file)
    options = {"mpp": 0.25, "strict_mpp": False, "overlap": None, "unrelated": 3}
    assert collect(SlideSettings, options, config) == SlideSettings(mpp=0.25, strict_mpp=False)
    assert collect(GridSettings, options, config) == GridSettings(overlap=32)
    assert collect(RunSettings, options, config) == RunSettings(max_bad_tiles=0.5)
    assert collect(CellSettings, options, config) == CellSettings()
    assert collect(TissueSettings, {}) == TissueSettings()
    assert str(SlideSettings(mpp=1.0, strict_mpp=True)) in invoke("a.svs", "--config", str(file))


def test_out_of_range_names_the_option() -> None:
    with pytest.raises(SettingsError, match=r"^--overlap: overlap is 300; expected 0 to 128 px$"):
        collect(GridSettings, {"overlap": 300})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\noverlap = 300", r"\[grid\] overlap: overlap is 300; expected 0 to 128 px"),
        ("[grid]\noverlapp = 3", r"\[grid\]: unknown key 'overlapp'; did you mean 'overlap'\? Known: target_mpp"),
        ("[tisue]\nmargin_um = 3", "unknown section 'tisue'; did you mean 'tissue'"),
        ("overlap = 3", "'overlap' stands outside a section"),
        ("[grid]\noverlap = '3'", r"\[grid\] overlap is '3'; expected a whole number"),
        ("[grid]\noverlap = true", "expected a whole number"),
        ("[slide]\nmpp = 'x'", "expected a number"),
        ("[slide]\nstrict_mpp = 1", "expected true or false"),
        ("[slide]\nbackend = 1", "expected text in quotes"),
        ("[slide]\nbackend = 'svs'", "backend is 'svs'; expected one of auto"),
        ("[slide", "not a TOML file"),
        ("[fit]\nloop = 1", r"\[fit\]: unknown key 'loop'"),
        ("datasets = 1", r"datasets is 1; expected \[\[datasets\]\]"),
        ("datasets = [1]", r"datasets is \[1\]; expected"),
    ],
)
def test_bad_config(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        read_config(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threshold = 0.5\n[slide]\nmpp = 0.5", r"'threshold' stands outside a section; expected it below \[cells\]"),
        ("workers = 2", r"below \[run\]"),
        ("seed = 2", r"below \[evaluate\] or \[corpus\]|below \[\w+\] or"),
        ("zzz = 2", r"'zzz' stands outside a section; expected it below a section, such as \[slide\]"),
        ("slide = 2", r"slide is a section; expected \[slide\] in a line of its own"),
        ("[slides]\nmpp = 1", "unknown section 'slides'; did you mean 'slide'"),
    ],
)
def test_a_key_outside_its_section_is_told_where_it_belongs(tmp_path: Path, text: str, message: str) -> None:
    (file := tmp_path / "run.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_config(file)


@pytest.mark.parametrize("text", ["a." * 50_000 + "a = 1", "x = " + "[" * 50_000, "[slide]\n" * 200_000])
def test_a_file_that_would_take_the_parser_gigabytes_is_not_given_to_it(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(text: str) -> None:
        raise AssertionError("the parser was asked")

    monkeypatch.setattr("tomllib.loads", stop)
    (file := tmp_path / "run.toml").write_text(text)
    with pytest.raises(SettingsError, match="characters; expected settings in short lines"):
        read_config(file)


def test_missing_config() -> None:
    with pytest.raises(SettingsError, match=r"--config nowhere.toml: cannot be read \(No such file"):
        read_config("nowhere.toml")


def test_a_box_is_a_field_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECTIONS, "phantom", PhantomSettings)
    (file := tmp_path / "run.toml").write_text("[phantom]\nbounds = [0, 0, 64, 32]")
    assert collect(PhantomSettings, {}, read_config(file)).bounds == (0, 0, 64, 32)
    file.write_text("[phantom]\nbounds = [0, 0, 64]")
    with pytest.raises(SettingsError, match=r"expected four whole numbers \[x0, y0, x1, y1\]"):
        read_config(file)
    draw = click.command()(options_for(PhantomSettings)(lambda **options: click.echo(options["bounds"])))
    assert CliRunner().invoke(draw, ["--bounds", "1,2,3,4"]).output == "(1, 2, 3, 4)\n"


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0,0,0,5", "5,5,1,1", "0.5,0,1,1"])
def test_bad_box(text: str) -> None:
    with pytest.raises(click.BadParameter, match="box"):
        BoxType().convert(text, None, None)


@needs_pipes
@pytest.mark.parametrize(
    "command",
    [
        ["models", "show", "{}"],
        ["tma", "slide.tiff", "-o", "out", "--names", "{}"],
        ["segment", "{}", "-o", "cells.geojson"],
        ["convert", "{}", "-o", "cells.csv"],
    ],
)
def test_a_named_pipe_is_refused(command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It may never say anything."""
    os.mkfifo(tmp_path / "pipe")
    assert main([word.format(tmp_path / "pipe") for word in command]) == 2
    assert "is a named pipe; expected a file" in " ".join(capfd.readouterr().err.split())
