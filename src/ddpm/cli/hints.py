"""What a person may have meant by an option or a command that there is not."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from tyro.conf import Positional

from ..utils.errors import did_you_mean

# Names from elsewhere, and what they are here: options, of which the first that a command has is
# meant, or a sentence.
ELSEWHERE = {
    "epochs num-epochs max-epochs num-train-epochs": "there are no epochs: give --minutes, --steps "
    "or --images, which counts an image each time it is seen",
    "num-workers workers dataloader-num-workers": "no workers are needed: images are decoded once, "
    "into a cache on disk",
    "gpu gpus cuda num-gpus": "a GPU is used where there is one; choose by --device cuda:1, and "
    "start several by accelerate launch",
    "cpu no-cuda": "give --device cpu",
    "prompt text caption": "there are classes, and no texts: give --label",
    "checkpoint ckpt model model-path model-id weights pretrained-model-name-or-path": "a "
    "checkpoint is named without an option: ddpm generate runs/first-run; training begins from one "
    "by --init",
    "verbose quiet log-level": "there is no such choice; --debug shows where in the code an error "
    "arose",
    "batch-size bs train-batch-size eval-batch-size": "--train.batch --batch",
    "resolution image-size img-size image-resolution width height": "--size",
    "max-steps train-steps max-train-steps num-train-steps iterations iters": "--steps",
    "num-inference-steps inference-steps sampling-steps sampling-timesteps ddim-steps sample-steps "
    "num-steps": "--sample.steps --steps",
    "timesteps num-timesteps num-train-timesteps diffusion-steps": "--diffusion.T --steps",
    "guidance-scale cfg cfg-scale cond-scale": "--sample.guidance --guidance",
    "scheduler": "--sample.sampler --sampler",
    "learning-rate": "--train.lr",
    "wandb use-wandb tensorboard mlflow report-to logger tracker log-with": "--track",
    "output-dir out-dir outdir output save-dir logdir results-folder": "--out",
    "data-dir dataset dataset-name data-path train-data-dir image-folder input": "--data",
    "resume-from resume-from-checkpoint continue": "--resume",
    "num-samples num-images n-samples samples count": "--n",
    "class class-label class-id": "--label",
    "mixed-precision fp16 bf16 amp dtype": "--train.precision --precision",
    "ema-decay": "--train.ema",
    "gradient-accumulation-steps grad-accum": "--train.accumulate",
    "max-grad-norm gradient-clip-val": "--train.grad-clip",
    "noise-schedule beta-schedule": "--diffusion.schedule",
    "prediction-type objective": "--diffusion.target",
    "random-flip horizontal-flip hflip": "--flip",
    "save-interval save-every checkpointing-steps": "--train.save-minutes",
    "log-interval logging-steps": "--train.log-every",
    "sample-every sample-interval": "--train.sample-minutes",
    "time max-time duration hours": "--minutes",
    "change denoising-strength": "--strength",
    "init-image": "--image",
    "force yes": "--overwrite",
    "dim model-channels base-channels num-channels": "--unet.channels",
    "dim-mults channel-mult": "--unet.mults",
    "num-res-blocks": "--unet.blocks",
    "attention-resolutions": "--unet.attention",
    "num-fid-samples": "--n",
}
COMMANDS_ELSEWHERE = {
    "sample": "generate", "inference": "generate", "infer": "generate", "fit": "train",
    "finetune": "train", "resume": "train", "eval": "evaluate", "score": "evaluate",
    "fid": "evaluate", "serve": "demo", "web": "demo", "app": "demo", "export": "convert",
    "import": "convert", "push": "publish", "upload": "publish", "check": "doctor",
    "inspect": "doctor",
}  # fmt: skip
OPTION = re.compile(r"--?[^\W\d].*", re.S)  # and not a negative number


def options_of(kind: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of the options that a dataclass becomes; nested ones last."""
    later: list[tuple[Any, str]] = []
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint: Any = hints[field.name]
        marks: Sequence[Any] = ()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        named = [name for m in marks if isinstance(name := getattr(m, "name", None), str)]
        name = (named[0] if named else field.name).replace("_", "-")
        if is_dataclass(hint):
            later.append((hint, f"{prefix}{name}." if name else prefix))
        elif get_args(Positional[int])[1] not in marks:
            yield f"--{prefix}{name}"
            yield from (alias for m in marks for alias in getattr(m, "aliases", None) or ())
            if hint is bool:
                yield f"--{prefix}no-{name}"
    for inner, before in later:
        yield from options_of(inner, before)


def unknown_option(words: Sequence[str], command: str, kinds: Mapping[str, Any]) -> str | None:
    """Return a sentence on the first of the words that is no option of the command, with what may
    be meant; None where there is none such."""
    known = [*options_of(kinds[command]), "--help", "-h"]
    for word in words:
        name = word.split("=")[0].replace("_", "-")
        if OPTION.fullmatch(word) and name not in known:
            return f"{command} has no option {word.split('=')[0]}{meant(name, known, kinds)}"
    return None


def meant(name: str, known: Sequence[str], kinds: Mapping[str, Any]) -> str:
    """Return the end of that sentence."""
    word, own = name.lstrip("-").lower(), by_word(known)
    foreign = {one: answer for names, answer in ELSEWHERE.items() for one in names.split()}
    if word not in own and word not in foreign:
        for command, kind in kinds.items():
            if there := by_word(list(options_of(kind))).get(word):
                return f"; ddpm {command} has {there}"
        near = difflib.get_close_matches(word[:100], [*own, *foreign], 1, 0.7)
        word = near[0] if near else ""
    answer = own.get(word) or foreign.get(word, "")
    if not answer.startswith("-"):
        return f": {answer}" if answer else ""
    here = next((option for option in answer.split() if option in known), None)
    return f"; did you mean {here}?" if here else meant(answer.split()[-1], known, kinds)


def by_word(options: Sequence[str]) -> dict[str, str]:
    """Return the options by their names, and by the last parts of these where no other has it."""
    last = {option.lstrip("-").split(".")[-1].lower(): option for option in reversed(options)}
    return last | {option.lstrip("-").lower(): option for option in options}


def unknown_command(words: Sequence[str], commands: Sequence[str]) -> str:
    """Return a sentence on words that do not begin with a command."""
    word, there_are = words[0], ", ".join(commands)
    first = next((w for w in words if w in commands), None)
    if word.startswith("-"):
        wanted = f"write ddpm {first} first, and then its options" if first else there_are
        return f"options come after a command: {wanted}"
    if other := COMMANDS_ELSEWHERE.get(word.lower()):
        return f"there is no command {word}; did you mean {other}?"
    return f"there is no command {word}, but {there_are}{did_you_mean(word, commands)}"
