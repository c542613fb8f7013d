"""What can be typed after a command: its options, their help and their ranges."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ..config import Config, Count, Few, NonNegative, Sampler, Seed, Share, Spacing, Width


@dataclass(frozen=True)
class TrainOptions:
    """Train a diffusion model on images, and leave everything in a run's folder.

    The preset sets all options below; give any of them to change it. Of --minutes, --steps and
    --images give one. Ctrl-C saves and ends; --resume with --out goes on.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: tyro.conf.Positional[str | None] = None
    """Where the settings begin: one of the presets; first-run if none is named."""
    out: str | None = None
    """Folder of the run. By default runs/PRESET, with a number where that is taken."""
    resume: bool = False
    """Go on with the run in --out, with the settings it has."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class SamplingOptions:
    """What generating and scoring have in common."""

    steps: Count | None = None
    """Steps from noise to an image. This and the next four: by default as the checkpoint says."""
    sampler: Sampler | None = None
    """How to walk from noise to images."""
    spacing: Spacing | None = None
    """How the steps lie on the way."""
    eta: Share | None = None
    """Noise that ddim adds on the way: 0 none, 1 as much as ddpm."""
    guidance: NonNegative | None = None
    """How strongly to insist on the class: 1 is plain, 0 asks for none."""
    guidance_above: Share | None = None
    """Guide at times above this share of T alone."""
    guidance_below: Share | None = None
    """Guide at times up to this share of T alone."""
    seed: Seed = 0
    """Another seed, other images."""
    batch: Count = 64
    """Images at a time."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Generate images out of noise.

    Image number i follows from the checkpoint, its label, these settings, the seed and i.
    """

    checkpoint: tyro.conf.Positional[str | None] = None
    """A run's folder, a .safetensors file, or the name of weights that come with the package:
    mnist, the default, cifar10 or celeba64."""
    n: Count = 16
    """How many images."""
    out: str | None = None
    """x.png: a grid. x.gif or x.webp: how they came out of the noise. x.npz: an array, with the
    labels. x, without an ending: a folder of single PNGs. By default generated.png, numbered."""
    overwrite: bool = False
    """Write over what --out names."""
    label: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A class, by name or number; may be repeated. Without it, all classes in turn. A name that
    begins with a dash is given as --label=-NAME."""
    towards: Seed | None = None
    """Another seed: the images lie between the first of --seed and the first of this one."""
    image: str | None = None
    """An image of yours, cropped and resized: make variations of it. With it, and with --towards, a
    class is asked only if you give a --label."""
    change: Annotated[float, Field(gt=0, le=1)] | None = None
    """How far a variation goes: 1 leaves nothing of the image. By default 0.6."""
    mask: str | None = None
    """A picture, white where --image is to be painted anew and black where it is kept."""
    rounds: Few | None = None
    """How often each step of painting is walked: more, and new and old fit better. By default 5."""


@dataclass(frozen=True)
class EvaluateOptions(SamplingOptions):
    """Report images: the Fréchet distance between their features and those of real images.

    Digits are seen by a classifier of digits that comes with the package, all else by the Inception
    network of the published scores, with which the distance is the FID; KID, Inception score,
    precision and recall then stand beside it. Every score says how it was made, and has its floor:
    the distance of as many other real images. A distance falls with the number of images: compare
    only those of the same number.
    """

    what: tyro.conf.Positional[str | None] = None
    """A run's folder, a .safetensors file or the name of weights that come with the package (mnist,
    the default); or images: an npz, a zip or a folder."""
    n: Count | None = None
    """How many images to make: 10,000 if not said."""
    data: str | None = None
    """The real images, as in training, never mirrored. By default those the network was trained on;
    for a file of 28x28 digits, mnist."""
    root: str | None = None
    """Where the named sets lie, or are downloaded to: by default as in training, or data."""
    split: Literal["train", "test"] | None = None
    """Of a named set: which part to hold the images against, train if not said. The other part
    makes the floor."""
    held_out: str | None = None
    """Other real images, to make the floor (of a named set its test split): by default the other
    part of a named set, and where there is none some of the real images against the rest."""
    size: tuple[Width, ...] = ()
    """Crop and resize the real images to this; by default as in training, or not at all."""
    features: str | None = None
    """inception, digit-net or cifar-net; or a file: a copy of the Inception network (.pth), a
    classifier of ours (.safetensors), or TorchScript from uint8 (B, 3, H, W) to features (B, D)."""
    likelihood: Count | None = None
    """Bound the bits/dim of so many held-out images too, with as many network evaluations each as
    the network was trained with: 1,000, as a rule."""
    memorization: str | None = None
    """A .png for the samples that are nearest to training images, beside these; and how near they
    are, beside how near other real images are."""
    against: str | None = None
    """The .json of another score, made in the same way: how do they compare?"""
    out: str | None = None
    """A .json file for the score and its protocol."""
    overwrite: bool = False
    """Write over what --out names."""


@dataclass(frozen=True)
class DemoOptions:
    """Open the demo: images out of noise, live in the browser."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ()
    """Runs' folders, .safetensors files or names of weights that come with the package: all of the
    latter, if none is named."""
    host: str = "127.0.0.1"
    """Who can reach it: 127.0.0.1 is this machine alone, 0.0.0.0 everyone on the network."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    password: str | None = None
    """Ask visitors for it; the user is ddpm."""
    runs: str = "runs"
    """The folder of runs that can be looked at while they train, or the folder of one of them."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class DoctorOptions:
    """Look at images before hours are spent on them: what there is, what is wrong with it, what
    will become of it, and what learning it costs on this machine."""

    data: tyro.conf.Positional[str]
    """As in training."""
    preset: str = "first-run"
    """Whose network and budget are meant."""
    root: str = "data"
    """Where the named sets lie, or are downloaded to."""
    size: tuple[Width, ...] = ()
    """As in training: crop and resize to this."""
    flip: bool = False
    """As in training: mirror half of the images."""
    sheet: str | None = None
    """A .png for the images that lose most by cropping."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class ReplayOptions:
    """Take a step again that gave no number, and say where the first one came from."""

    batch: tyro.conf.Positional[str]
    """A file in a run's folder bad/."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class ConvertOptions:
    """Write a checkpoint as a folder that diffusers loads as a DDPMPipeline, or read such a folder.

    diffusers itself is not needed. The outputs of both are equal, to rounding.
    """

    source: tyro.conf.Positional[str]
    """A run's folder or a .safetensors file, to be written for diffusers; or a folder of theirs."""
    out: tyro.conf.Positional[str]
    """A new folder for diffusers; or a new .safetensors file."""
