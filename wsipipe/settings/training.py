"""The knobs of training a segmenter: samples, optimisation, what is fitted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from wsipipe.errors import SettingsError
from wsipipe.settings.knob import Checked, knob
from wsipipe.settings.registry import HEADS

BACKBONES = (
    "cmd", "attention-unet", "dit", "vit", "convnext", "swin", "nnunet", "transunet", "vit-adapter",
)  # fmt: skip
"""Kinds of backbones; :data:`wsipipe.models.backbone_kinds.KINDS` lists the same names with their networks."""
RANDOM = ("T", "S", "B", "L", *(f"{kind}-{size}" for kind in BACKBONES for size in ("T", "S", "B", "L")), "rgb")
"""Names of backbones that start from random weights: sizes of CMD, or a kind and a size; bare pixels have none."""


@dataclass(frozen=True)
class AugmentSettings(Checked):
    """How far augmentation goes."""

    scale_low: float = knob(0.75, "Smallest magnification of a sample.", low=0.2, high=1)
    scale_high: float = knob(1.35, "Largest magnification of a sample.", low=1, high=5)
    stain: float = knob(0.20, "Spread of the stain's strength (HED space).", low=0, high=1)
    hue: float = knob(0.0, "Spread of the stains' colours (HED vectors).", low=0, high=0.5)
    gamma: float = knob(0.0, "Spread of the logarithm of the scanner's gamma.", low=0, high=1)
    dab: float = knob(
        0.0, "Share of samples repainted as haematoxylin and DAB, some of their nuclei brown.", low=0, high=1
    )
    on_nuclei: float = knob(0.0, "Share of samples centred on a nucleus; the others lie anywhere.", low=0, high=1)
    brightness: float = knob(0.12, "Spread of brightness and contrast.", low=0, high=1)
    blur: float = knob(1.2, "Largest Gaussian blur.", unit="px", low=0, high=10)
    jpeg: float = knob(0.3, "Share of samples that are JPEG-compressed.", low=0, high=1)


@dataclass(frozen=True)
class LoopSettings(Checked):
    """How weights are optimised."""

    optimiser: str = knob(
        "adamw",
        "Optimiser; sgd: momentum 0.99, as nnU-Net; lbfgs: the optimum of a linear head on a frozen backbone, which "
        "no number of steps decides.",
        choices=("adamw", "sgd", "lbfgs"),
    )
    steps: int = knob(0, "Optimisation steps (0: as many as --epochs ask for).", low=0)
    schedule: str = knob(
        "cosine",
        "Course of the rate after warm-up: cosine to zero; poly: to zero as nnU-Net's, by a power of 0.9; "
        "plateau: constant, then to zero over the last --cooldown steps, and when the same run is given more --steps "
        "it goes on.",
        choices=("cosine", "poly", "plateau"),
    )
    cooldown: int = knob(500, "Steps over which the rate of a plateau goes to zero.", low=1)
    lr: float = knob(1e-3, "Peak learning rate.", low=1e-8, high=1)
    weight_decay: float = knob(0.01, "Weight decay.", low=0, high=1)
    warmup: int = knob(50, "Steps of linear warm-up.", low=0)
    ema: float = knob(0.999, "Limit of the moving average's decay, min(ema, (1 + s) / (10 + s)).", low=0, high=1)
    clip: float = knob(1.0, "Largest gradient norm.", low=0)
    checkpoint_every: int = knob(100, "Steps between checkpoints.", low=1, result=False)


@dataclass(frozen=True)
class FitSettings(Checked):
    """What is fitted, on what samples."""

    name: str = knob("my-model", "Name of the model in its card and in results.")
    licence: str = knob("unknown", "Licence of the weights, as the training data demand.")
    head: str = knob(
        "cisca", "Head; decoder: for token maps; deep: nnU-Net's deep supervision; uper: UperNet.", choices=HEADS
    )
    backbone: str = knob(
        "T",
        "Backbone: a size, T, S, B or L, from random weights, of another kind attention-unet-T, dit-T, vit-T, nnunet-S "
        "and so on; rgb, the bare pixels; or a model's: a shipped name or a file.",
    )
    reuse_head: bool = knob(False, "Start from the head of the --backbone model too: same kind, same types.")
    types: bool = knob(True, "Learn cell types, where the sets tell them.")
    types_only: bool = knob(
        False, "Learn cell types alone, for the --backbone model as it is: it goes on finding the same nuclei."
    )
    unfreeze: bool | None = knob(None, "Train the backbone too; default: only one that starts from random weights.")
    adapt: str = knob(
        "none",
        "Adapt a frozen backbone: low ranks on its layers (lora, dora), further blocks (transformer), or a branch of "
        "convolutions (cnn).",
        choices=("none", "lora", "dora", "transformer", "cnn"),
    )
    encoder: str = knob(
        "",
        "Encoder of a conditioned --backbone that stays frozen, a plain vision transformer on disk: NAME=FOLDER, or a "
        "folder; its weights go into the model file.",
    )
    rank: int = knob(16, "Rank of lora and dora.", low=1, high=1024)
    backbone_lr: float = knob(1.0, "Learning rate of an unfrozen backbone, as a share of the head's.", low=0, high=1)
    working_mpp: float = knob(0.5, "Resolution the model works at.", unit="µm/px", low=0.05, high=5)
    normalise: bool = knob(
        False, "Bring the training images to their mean colours first, and slides too when the model is used."
    )
    epochs: float = knob(150.0, "Passes over the training images, in crops; --steps overrides.", low=0.01)
    batch: int = knob(8, "Crops per step.", low=1)
    crop: int | None = knob(
        None, "Side of the training crops; default: 160, on a frozen backbone 256.", unit="px", low=64, high=512
    )
    final_share: float = knob(
        0.15, "Share of the steps, at the end, on 256 px crops; after a plateau, --cooldown steps.", low=0, high=1
    )
    shots: int = knob(0, "Train on so many images only, of as many patients as possible (0: all).", low=0)
    cache_features: int = knob(
        0,
        "Compute frozen features once and keep them on disk: 1 without augmentation, K as K augmented views (0: not).",
        low=0,
        high=1000,
    )
    validate_every: int = knob(0, "Steps between scores on the validation split (0: none).", low=0)
    keep: str = knob("best", "Weights of the model: those that scored best, or the last.", choices=("best", "last"))
    score: str = knob("PQ", "What best means, pooled over the validation images.", choices=("PQ", "mDice", "dice"))
    seed: int = knob(0, "Seed of weights, shots, order and augmentation.", low=0)
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps.", result=False)
    precision: str = knob(
        "auto", "Arithmetic; auto: bf16 autocast on a GPU, fp32 on a CPU.", choices=("auto", "fp32", "bf16")
    )
    loop: LoopSettings = dataclasses.field(default_factory=LoopSettings)
    augment: AugmentSettings = dataclasses.field(default_factory=AugmentSettings)

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as it is."""
        if self.types_only:
            return True
        if self.backbone == "rgb":
            return True
        return self.adapt == "none" and not (self.backbone in RANDOM if self.unfreeze is None else self.unfreeze)

    @property
    def starts_from_head(self) -> bool:
        """Whether the head is that of the --backbone model."""
        return self.reuse_head or self.types_only

    @property
    def crop_px(self) -> int:
        """Side of the training crops; GRN looks at the whole tile, so frozen features need whole ones."""
        return self.crop or (256 if self.frozen or self.adapt != "none" else 160)


@dataclass(frozen=True)
class CorpusSettings(Checked):
    """Which patches of the slides make the corpus. A patch that a filter refuses is counted, and never kept."""

    mpp: float = knob(0.5, "Resolution of the patches (0: each image's own).", unit="µm/px", low=0, high=5)
    patch: int = knob(512, "Side of a patch.", unit="px", low=32, high=4096)
    cap: int = knob(0, "Most patches per slide, drawn at random (0: all).", low=0)
    max_overlap: float = knob(0.5, "Largest overlap of a patch at the far edge with its neighbour.", low=0, high=0.95)
    max_zoom: float = knob(1.0, "An image too small for a patch is taken this much finer at most.", low=1, high=8)
    allow_upsample: bool = knob(False, "Take images more than 2x coarser than --mpp.")
    max_background: float = knob(0.5, "Largest share of glass in a patch.", low=0, high=1)
    min_focus: float = knob(8.0, "Least sharpness: 99th percentile of the Laplacian.", unit="grey levels", low=0)
    max_pen: float = knob(0.02, "Largest share of pen ink.", low=0, high=1)
    max_folds: float = knob(0.1, "Largest share of folded tissue.", low=0, high=1)
    max_bad_tiles: float = knob(
        0.05, "Leave a slide out when more than this share of its tissue cannot be read.", low=0, high=1
    )
    duplicates: int = knob(8, "Bits of 64 in which near-duplicates' hashes may differ (-1: keep all).", low=-1, high=24)
    val: float = knob(0.1, "Share of the patients in the validation split.", low=0, high=1)
    test: float = knob(0.0, "Share of the patients in the test split.", low=0, high=1)
    seed: int = knob(0, "Seed of the splits, the cap's draw and the contact sheet.", low=0)
    codec: str = knob("webp", "Compression of the patches, all lossless.", choices=("webp", "zstd", "none"))
    shard: int = knob(128, "Patches per file.", low=1, high=4096)
    threads: int = knob(0, "Threads that read (0: one per core).", low=0, high=1024, result=False)


@dataclass(frozen=True)
class PretrainSettings(Checked):
    """How a backbone is pretrained by masked diffusion. The defaults are the paper's, where it states them."""

    name: str = knob("my-backbone", "Name of the backbone in its card.")
    licence: str = knob("unknown", "Licence of the weights, as the slides demand.")
    backbone: str = knob("cmd", "Kind of the backbone.", choices=BACKBONES)
    size: str = knob("T", "Size of the backbone (the paper's are B and L).", choices=("T", "S", "B", "L"))
    init: str = knob(
        "xavier",
        "Weights to begin with; xavier: as diffusion networks begin, uniform, biases zero; torch: the layers' own.",
        choices=("xavier", "torch"),
    )
    space: str = knob(
        "pixel",
        "What the backbone fills in: the picture; or latents of the autoencoder --vae, of the picture as it is or, "
        "vae-512, enlarged to 512 px.",
        choices=("pixel", "vae", "vae-512"),
    )
    vae: str = knob("", "Folder of the autoencoder, as --autoencoder or the library diffusers writes it.")
    autoencoder: bool = knob(False, "Train a small autoencoder for --space vae in place of a backbone.")
    encoder: str = knob(
        "",
        "Frozen foundation model that conditions the backbone: a name of `wsipipe models encoders`, NAME=FOLDER, "
        "hf-hub:OWNER/MODEL, or a folder of weights; none.",
    )
    token: str = knob(
        "class",
        "What of the encoder conditions the backbone: the class token, or the mean of the patches' tokens.",
        choices=("class", "patch"),
    )
    split: str = knob("train", "Part of the corpus to train on.", choices=("train", "all"))
    steps: int = knob(50_000, "Optimisation steps.", low=1)
    batch: int = knob(64, "Samples per step, over all processes.", low=1)
    accumulate: int = knob(1, "Forward passes per step and process, for less memory.", low=1, result=False)
    lr: float = knob(3e-5, "Learning rate.", low=1e-8, high=1)
    schedule: str = knob("constant", "Course of the learning rate after warm-up.", choices=("constant", "cosine"))
    warmup: int = knob(0, "Steps of linear warm-up.", low=0)
    weight_decay: float = knob(0.0, "AdamW's weight decay.", low=0, high=1)
    clip: float = knob(0.0, "Largest gradient norm (0: not limited).", low=0)
    ema: float = knob(0.9999, "Limit of the moving average's decay, min(ema, (1 + s) / (10 + s)).", low=0, high=1)
    crop_share: float = knob(0.8, "Share of random crops; the other samples show the whole patch.", low=0, high=1)
    l1: float = knob(1.0, "Weight of the absolute error.", low=0)
    ssim: float = knob(0.0, "Weight of (1 - SSIM) / 2.", low=0)
    seed: int = knob(0, "Seed of weights, order, crops, timesteps and masks.", low=0)
    precision: str = knob(
        "auto", "Arithmetic; auto: bf16 autocast on a GPU, fp32 on a CPU.", choices=("auto", "fp32", "bf16")
    )
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps.", result=False)
    compile: str = knob(
        "auto",
        "torch.compile of the blocks; auto: on a GPU, with a C compiler at hand.",
        choices=("auto", "on", "off"),
        result=False,
    )
    checkpoint_activations: bool = knob(
        False, "Recompute the blocks' activations in the backward pass: less memory, more time.", result=False
    )
    workers: int | None = knob(
        None, "Processes that read patches (0: a thread); default: 0 on a CPU, all cores on a GPU.", low=0, result=False
    )
    checkpoint_every: int = knob(500, "Steps between checkpoints.", low=1, result=False)
    picture_every: int = knob(1000, "Steps between pictures of reconstructions.", low=1, result=False)
    snapshots: str = knob("", "Steps whose averaged backbone is kept too, as in 1000,2500.", result=False)

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """The steps of :attr:`snapshots`."""
        words = [word.strip() for word in self.snapshots.split(",") if word.strip()]
        if not all(word.isdecimal() and int(word) for word in words):
            raise SettingsError(f"snapshots is {self.snapshots!r}; expected steps with commas, as in 1000,2500")
        return tuple(map(int, words))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.snapshot_steps  # noqa: B018


@dataclass(frozen=True)
class EvaluateSettings(Checked):
    """How a model is scored."""

    tolerance_px: float = knob(2.0, "Boundary pixels this near agree.", unit="px of the image", low=0, high=50)
    resamples: int = knob(1000, "Bootstrap resamples of the images, for the 95 % intervals.", low=1, high=1_000_000)
    seed: int = knob(0, "Seed of the resamples.", low=0)
    pictures: int = knob(3, "Pictures of that many best and that many worst images.", low=0, high=1000)
    ttt_steps: int = knob(
        0, "Test-time training: steps of masked diffusion on each image before it is predicted (0: none).", low=0
    )
    ttt_lr: float = knob(1e-4, "Learning rate of test-time training.", low=1e-8, high=1)
    ttt_batch: int = knob(4, "Tiles of a step of test-time training.", low=1, high=1024)
    ttt_part: str = knob(
        "backbone",
        "What test-time training changes: the whole backbone, its norms and modulations, or low ranks on its layers.",
        choices=("backbone", "norms", "lora"),
    )
