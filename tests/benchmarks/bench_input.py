"""Does the input pipeline of `pretrain` keep a GPU busy? Samples per second made, against those that CMD-B takes.

    python -m tests.benchmarks.bench_input [CORPUS] [--workers 0 1 2 ...] [--samples 512]

Made: a patch read and decoded, cropped or resized, masked, stacked and handed over by the worker processes, then
normalised as for the network. The first table counts CPU time, which holds on a busy machine and gives a rate per core;
the second wall time, which means something on an idle one. Without CORPUS one is made of a phantom slide, which
compresses better than tissue, so that a real corpus decodes more slowly.

Taken: measured where there is a GPU. Elsewhere computed from assumptions that are printed: a training step costs three
forward passes of 223 GMAC, and a GPU sustains a share of its published dense bf16 rate.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from wsipipe.corpus import Corpus, open_corpus
from wsipipe.phantom.slide import write_phantom
from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.settings import CorpusSettings, PhantomSettings, PretrainSettings
from wsipipe.train.diffusion import normalise
from wsipipe.train.feed import Steps, feed
from wsipipe.train.pretraining import Objective, Source, new_backbone, prepare

BATCH = 32
GMAC = 223
PUBLISHED = {"A100": 312e12, "H100 / H200": 989e12}
"""Dense bf16 FLOP/s, as the maker states them."""
SHARES = 0.2, 0.4
"""Of the published rate: what convolutional networks of this kind reach, low and high."""
MARGIN = 1.5


def phantom_corpus(folder: Path) -> Path:
    """Return a corpus of a phantom slide."""
    slide = folder / "phantom.tiff"
    write_phantom(slide, PhantomSettings(width=6144, height=6144, mpp=0.5, tissue=0.9, nuclei_per_mm2=6000))
    settings = CorpusSettings(max_background=1, min_focus=0, duplicates=-1)
    return run_build_corpus(CorpusJob((str(slide),), folder / "corpus.zarr", settings=settings), Progress())


def batches_of(corpus: Corpus) -> Steps:
    return Steps(corpus, corpus.indices("all"), 0, BATCH, range(BATCH), 0.8)


def per_core(corpus: Corpus, samples: int) -> float:
    """Return samples per second of CPU time: all threads of this process, without workers."""
    torch.set_num_threads(1)
    steps, count = batches_of(corpus), -(-samples // BATCH)
    steps[0]  # opens files, compiles nothing: warm
    start = time.process_time()
    for batch in feed(steps, 1, 1 + count):
        normalise(batch.images)
    return count * BATCH / (time.process_time() - start)


def by_workers(corpus: Corpus, samples: int, workers: int) -> float:
    """Return samples per second of wall time, once the workers run."""
    count = -(-samples // BATCH) + 1
    batches = feed(batches_of(corpus), 0, count, workers)
    next(batches)
    start = time.perf_counter()
    for batch in batches:
        normalise(batch.images)
    return (count - 1) * BATCH / (time.perf_counter() - start)


def measured_need(corpus: Corpus) -> float:
    """Return the samples per second that CMD-B takes in training on this GPU."""
    settings, device = PretrainSettings(size="B", batch=BATCH), torch.device("cuda")
    network = new_backbone(settings, 0).to(device)
    prepare(network, settings, device)
    objective, batch = (
        Objective(network, Source(corpus, corpus.indices("all")), settings, device),
        batches_of(corpus)[0],
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-5)
    for step in range(13):
        if step == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        objective(batch).backward()
        optimiser.step()
    torch.cuda.synchronize()
    return 10 * BATCH / (time.perf_counter() - start)


def say_need(corpus: Corpus, rate: float) -> None:
    if torch.cuda.is_available():
        need = measured_need(corpus)
        print(f"\n{torch.cuda.get_device_name()}: CMD-B takes {need:.0f} samples/s (measured)")
        print(f"{MARGIN} x that: {MARGIN * need / rate:.1f} cores of {allowed_cores()} here")
        return
    flop = 3 * 2 * GMAC * 1e9
    print(f"\nno GPU here: CMD-B's need computed from {flop / 1e12:.2f} TFLOP per sample")
    print(f"{'GPU':<12} {'share':>6} {'samples/s':>10} {'x 1.5':>6} {'cores for that':>15}")
    for name, published in PUBLISHED.items():
        for share in SHARES:
            need = published * share / flop
            cores = MARGIN * need / rate
            print(f"{name:<12} {share:>6.0%} {need:>10.0f} {MARGIN * need:>6.0f} {cores:>15.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--workers", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=512)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = open_corpus(args.corpus or phantom_corpus(Path(folder)))
        stored = sum(f.stat().st_size for f in corpus.path.rglob("*") if f.is_file()) / len(corpus) / 1000
        print(f"{len(corpus)} patches, {stored:.0f} kB each in the store, codec {corpus.about['settings']['codec']}")
        rate = per_core(corpus, args.samples)
        print(f"{rate:.0f} samples per second of CPU time: what one core makes")
        for workers in args.workers:
            made = by_workers(corpus, args.samples, workers)
            print(f"{workers} workers: {made:.0f} samples/s of wall time, {allowed_cores()} cores")
        say_need(corpus, rate)


if __name__ == "__main__":
    main()
