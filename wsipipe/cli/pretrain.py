"""``wsipipe pretrain``: train a backbone on unlabelled patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.errors import WsipipeError
from wsipipe.settings import CorpusSettings, PretrainSettings


@click.command(cls=Command)
@click.argument("sources", metavar="CORPUS", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run."
)
@click.option(
    "--image-mpp",
    type=click.FloatRange(0.01, 20),
    metavar="NUMBER",
    help="Resolution of pictures that state none, in µm/px, when a corpus is built first.",
)
@config_option
@options_for(PretrainSettings)
def pretrain(sources: tuple[str, ...], output: Path, image_mpp: float | None, config: Any, **options: Any) -> int:
    """Pretrain a backbone by masked diffusion on a corpus of unlabelled patches.

    A share of every picture is masked, from almost nothing to almost all, and the backbone learns to fill it in. The
    file that comes out is what `wsipipe fit --backbone` takes. The same command resumes an interrupted run, and with
    more --steps goes on with a finished one. Given slides or folders in place of a CORPUS, it builds one first, with
    the defaults of `wsipipe build-corpus` or the [corpus] section of --config.

    \b
    Examples:
      wsipipe pretrain corpus.zarr -o run/ --size T --steps 5000 --batch 16 --lr 3e-4
      wsipipe pretrain slides/ -o run/
      wsipipe pretrain pictures/ --image-mpp 0.5 -o run/
      wsipipe pretrain corpus.zarr -o run/ --backbone dit --size S
      wsipipe pretrain corpus.zarr -o vae/ --autoencoder --steps 2000 --lr 3e-4 --batch 8
      wsipipe pretrain corpus.zarr -o run/ --backbone dit --space vae --vae vae/
      wsipipe pretrain corpus.zarr -o run/ --encoder hf-hub:bioptimus/H0-mini --size B
      torchrun --nproc-per-node 8 -m wsipipe pretrain corpus.zarr -o run/ --size L --batch 512
      wsipipe fit my-set --backbone run/backbone.safetensors -o head/
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.pretrain import PretrainJob, run_pretrain
    from wsipipe.schedule.progress import Progress
    from wsipipe.train.distributed import ranks

    settings, corpus = collect(PretrainSettings, options, config), collect(CorpusSettings, {}, config)
    job = PretrainJob(sources, output, settings, corpus, image_mpp)
    if not ranks().main:  # the first process speaks for all
        try:
            run_pretrain(job, Progress())
        except WsipipeError as error:
            return error.exit_code
        return 0
    with TerminalProgress() as progress:
        try:
            backbone = run_pretrain(job, progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command resumes it") from stop
    if settings.autoencoder:
        click.echo(f"wrote {backbone}; use it with: wsipipe pretrain CORPUS --space vae --vae {backbone} -o run/")
        return 0
    click.echo(f"wrote {backbone}; use it with: wsipipe fit DATASET --backbone {backbone} -o head/")
    return 0
