"""Snakemake and Nextflow: their commands are ones that wsipipe takes, their settings are known; real dry runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from tests.conftest import ROOT
from wsipipe.cli.report import report
from wsipipe.cli.segment import segment
from wsipipe.segmentation.slides import SLIDE_SUFFIXES

SNAKEFILE, CONFIG = (ROOT / "workflows" / "snakemake" / name for name in ("Snakefile", "config.yaml"))
MAIN, NEXTFLOW = (ROOT / "workflows" / "nextflow" / name for name in ("main.nf", "nextflow.config"))
COMMANDS = {"segment": segment, "report": report}


def understood(line: str, folder: Path) -> tuple[str, click.Context]:
    """Return the command that a shell's *line* calls, and what it understands of the rest."""
    words = shlex.split(line.split(" > ")[0])
    words = [word for word in words if not re.fullmatch(r"\w+=\d+", word)]
    assert words[0] == "wsipipe", line
    (folder / "results").mkdir(exist_ok=True)
    words = [str(folder / "results") if word == "results" else word for word in words]
    return words[1], COMMANDS[words[1]].make_context(words[1], words[2:])


def snakemake_commands() -> list[str]:
    """Return the shell commands of the rules, placeholders replaced by what they could be."""
    text = SNAKEFILE.read_text()
    blocks = re.findall(r"    shell:\n((?:        \".*\"\n)+)", text)
    joined = ["".join(re.findall(r'"(.*)"', block)) for block in blocks]
    values = {"threads": "4", "input:q": "'a slide.svs'", "output.cells:q": "o.parquet", "params.model:q": "cmd-t"}
    values |= {"output.geojson:q": "o.geojson.gz", "params.options": "--device cpu", "log:q": "x.log"}
    values |= {"params.out:q": "results", "output:q": "results/report.html"}
    return [re.sub(r"\{([\w.:]+)\}", lambda m: values[m[1]], line) for line in joined]


def nextflow_commands() -> list[str]:
    """Return the `wsipipe` lines of the processes, values put in."""
    text = "".join(re.findall(r'"""(.*?)"""', MAIN.read_text(), re.DOTALL))
    values = {"task.cpus": "4", "slide": "/data/a slide.svs", "out": "results", "name": "a slide.svs"}
    values |= {"params.model": "cmd-t", "params.options": "--device cpu"}
    filled = re.sub(r"\$\{([\w.]+)\}", lambda m: values[m[1]], text)
    return [line.strip() for line in filled.splitlines() if "wsipipe" in line]


@pytest.mark.parametrize("commands", [snakemake_commands, nextflow_commands])
def test_commands_are_taken(commands, tmp_path: Path) -> None:
    found = dict(understood(line, tmp_path) for line in commands())
    assert set(found) == {"segment", "report"}
    told = found["segment"].params
    assert told["model"] == "cmd-t" and told["device"] == "cpu" and len(told["slides"]) == 1
    assert str(told["outputs"][0]).endswith(".parquet") and str(told["outputs"][1]).endswith(".geojson.gz")
    assert found["report"].params["out"].name == "report.html"


def test_an_option_that_is_gone_would_be_seen(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError):
        understood("wsipipe segment a.svs -o b.parquet --no-such-option", tmp_path)


def test_every_setting_of_snakemake_is_used_and_known() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert set(re.findall(r'config\["(\w+)"\]', SNAKEFILE.read_text())) == set(config)
    text = (SNAKEFILE.parent / "README.md").read_text()
    given = re.findall(r"(?:--config )((?:\w+=\S+ ?)+)", text) + re.findall(r'gpu=1 (options=)"', text)
    assert {pair.split("=")[0] for pairs in given for pair in pairs.split() if "=" in pair} <= set(config)


def test_both_look_for_the_slides_that_wsipipe_opens() -> None:
    files = {suffix for suffix in SLIDE_SUFFIXES if suffix not in (".dcm", ".zarr")}
    assert set(yaml.safe_load(CONFIG.read_text())["endings"]) == files
    (pattern,) = re.findall(r"slides = 'slides/\*\*\.\{(.*)\}'", NEXTFLOW.read_text())
    assert {f".{ending}" for ending in pattern.split(",")} == files


def test_every_parameter_of_nextflow_is_declared_used_and_explained() -> None:
    config, text = NEXTFLOW.read_text(), (MAIN.parent / "README.md").read_text()
    (block,) = re.findall(r"^params \{\n(.*?)^\}", config, re.DOTALL | re.MULTILINE)
    declared = set(re.findall(r"^    (\w+) = ", block, re.MULTILINE))
    used = set(re.findall(r"params\.(\w+)", MAIN.read_text() + config.replace(block, "")))
    assert declared == used
    given = set(re.findall(r" --(\w+)", text))
    assert given <= declared and {"slides", "out"} <= given
    profiles = set(re.findall(r"^    (\w+) \{", config[config.index("profiles {") :], re.MULTILINE))
    named = {name for line in re.findall(r"-profile (\S+)", text) for name in line.split(",")}
    assert named <= profiles and all(f"`{name}`" in text for name in profiles)


@pytest.mark.parametrize("path", [MAIN, NEXTFLOW], ids=lambda path: path.name)
def test_brackets_and_quotes_of_nextflow_match(path: Path) -> None:
    """No parser of Nextflow is at hand; what is checked here is what a slip of the pen breaks first."""
    code = re.sub(r'""".*?"""|/\[.*?\$/', "", path.read_text(), flags=re.DOTALL)
    code = re.sub(r"//.*", "", re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "''", code))
    for opening, closing in ("{}", "()", "[]"):
        assert code.count(opening) == code.count(closing), opening
    assert code.count("'") % 2 == 0 and '"' not in code


def test_what_is_stopped_from_outside_is_tried_again_and_failures_are_not_lost() -> None:
    config = NEXTFLOW.read_text()
    (codes,) = re.findall(r"task\.exitStatus in \[(.*?)\] \? 'retry' : 'ignore'", config)
    assert {130, 137, 143} <= {int(code) for code in codes.split(",")}
    assert "workflow.failOnIgnore = true" in config and "maxRetries" in config


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    (folder / "a").mkdir(parents=True)
    for name in ("a/x.svs", "my slide.TIFF", "notes.txt"):
        (folder / name).touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="no snakemake (pip install snakemake)")
def test_snakemake_plans_every_slide(slides: Path) -> None:
    command = [
        "snakemake",
        "-s",
        str(SNAKEFILE),
        "--cores",
        "2",
        "-n",
        "-p",
        "--config",
        "slides=slides",
        "out=results",
    ]
    done = subprocess.run(command, cwd=slides, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    lines = re.findall(r"OMP_NUM_THREADS.*|wsipipe report .*", said)
    assert len([line for line in lines if "segment" in line]) == 2 and len(lines) == 3
    planned = [understood(line, slides)[1].params for line in lines]
    assert sorted(p["slides"][0] for p in planned if "slides" in p) == ["slides/a/x.svs", "slides/my slide.TIFF"]
    assert not (slides / "results" / "a").exists()


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="no snakemake (pip install snakemake)")
def test_snakemake_says_that_there_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    command = ["snakemake", "-s", str(SNAKEFILE), "--cores", "1", "-n"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and "no slide in slides; expected files that end in .svs" in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("nextflow") is None, reason="no nextflow")
def test_nextflow_plans_every_slide(slides: Path) -> None:
    command = ["nextflow", "run", str(MAIN.parent), "-preview", "--slides", "slides/**.{svs,TIFF}", "--out", "results"]
    done = subprocess.run(command, cwd=slides, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
