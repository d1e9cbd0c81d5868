"""``wsipipe pretrain``: train a backbone on unlabelled patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.settings import PretrainSettings


@click.command(cls=Command)
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run."
)
@config_option
@options_for(PretrainSettings)
def pretrain(corpus: Path, output: Path, config: Any, **options: Any) -> None:
    """Pretrain a backbone by masked diffusion on a corpus of unlabelled patches.

    A share of every picture is masked, from almost nothing to almost all, and the backbone learns to fill it in. The
    file that comes out is what `wsipipe fit --backbone` takes. The same command resumes an interrupted run.

    \b
    Examples:
      wsipipe build-corpus slides/ -o corpus.zarr
      wsipipe pretrain corpus.zarr -o run/ --size T --steps 5000 --lr 3e-4 --batch 16
      torchrun --nproc-per-node 8 -m wsipipe pretrain corpus.zarr -o run/ --size B
      wsipipe fit my-set --backbone run/backbone.safetensors -o head/
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.pretrain import PretrainJob, run_pretrain

    settings = collect(PretrainSettings, options, config)
    with TerminalProgress() as progress:
        try:
            backbone = run_pretrain(PretrainJob(corpus, output, settings), progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command resumes it") from stop
    click.echo(f"wrote {backbone}; use it with: wsipipe fit DATASET --backbone {backbone} -o head/")
