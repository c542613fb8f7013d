"""`ddpm publish`: a network on the Hugging Face hub, with a card that says what it is."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction

from ..checkpoint.run_dir import find_checkpoint
from ..config import option, write_toml
from ..utils.errors import UserError, first_line
from ..utils.files import atomic_write
from .common import Device, device_for, require_files, say

if TYPE_CHECKING:
    from ..checkpoint.checkpoint import Checkpoint
    from ..evaluation.report import Report

SAMPLES = 64


@dataclass(frozen=True)
class PublishOptions:
    """Put a network on the Hugging Face hub, with a card: data, settings, scores, samples, licence.

    The repository holds the checkpoint, a folder for diffusers, samples and the card. Names of
    folders on this machine are left out; names of classes are not.
    """

    run: Annotated[Positional[str], option("RUN")]
    """A run's folder, a .safetensors file, or bundled weights."""
    name: Annotated[Positional[str], option("OWNER/NAME")]
    """The repository on the hub."""
    dry_run: Annotated[str | None, option("DIR")] = None
    """Write the repository to this folder, new or empty, and upload nothing."""
    scores: Annotated[UseAppendAction[tuple[str, ...]], option("PATH")] = ()
    """A score of this network, a .json file of ddpm evaluate --out; may be repeated."""
    license: Annotated[str, option("ID")] = ""
    """Licence of the weights, by the hub's name of it, such as mit or cc-by-nc-4.0."""
    data_license: Annotated[str, option("TEXT")] = ""
    """What the images that it learned may be used for."""
    private: Annotated[FlagCreatePairsOff[bool], option()] = False
    """Show the repository to its owner alone."""
    overwrite: Annotated[FlagCreatePairsOff[bool], option()] = False
    """Change a repository that is there already."""
    device: Device = None


def publish(options: PublishOptions) -> int:
    find_checkpoint(options.run)
    require_files(*options.scores)

    from ..checkpoint.checkpoint import load, without_paths
    from ..evaluation.card import check_reports
    from ..evaluation.report import read_report

    check_name(options.name)
    reports = [read_report(path) for path in options.scores]
    checkpoint = without_paths(load(options.run))
    check_reports(checkpoint, reports)
    if options.dry_run:
        write_repository(checkpoint, reports, options, Path(options.dry_run))
        say(f"{options.dry_run}: what ddpm publish would upload as {options.name}")
        return 0
    check_login()
    with TemporaryDirectory() as folder:
        write_repository(checkpoint, reports, options, Path(folder))
        say(f"{upload(Path(folder), options)}: {checkpoint!r}")
    return 0


def write_repository(
    checkpoint: "Checkpoint", reports: list["Report"], options: PublishOptions, folder: Path
) -> None:
    from ..checkpoint.checkpoint import save
    from ..checkpoint.diffusers import require_new, write_diffusers
    from ..evaluation.card import Licences, card
    from ..generation.generate import generate
    from ..generation.settings import MAX_OWN_STEPS

    c, licences = checkpoint, Licences(options.license.lower(), options.data_license)
    require_new(folder)
    sampling = c.config.sample
    few = replace(sampling, steps=min(sampling.steps, MAX_OWN_STEPS))
    samples = generate(c, SAMPLES, settings=few, device=device_for(options.device))
    trust = write_diffusers(c, folder)
    save(
        folder / "model.safetensors", c.net, c.config, c.data, c.step, c.images_seen, c.weights,
        guide=c.guide,
    )  # fmt: skip
    write_toml(c.config, folder / "config.toml")
    samples.save(folder / "samples.png")
    for i, report in enumerate(reports):
        report.save(folder / f"score-{i + 1}.json")
    with atomic_write(folder / "README.md") as beside:
        beside.write_text(card(c, options.name, reports, licences, trust), encoding="utf-8")


def check_name(name: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"the hub allows no such name: {first_line(error)}") from None
    if name.count("/") != 1:
        raise UserError(f"{name} is not an OWNER/NAME of the hub")


def check_login() -> None:
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError("the hub does not know you: log in by hf auth login, or try --dry-run DIR")


def said_of_card(text: str) -> str:
    """Return what the hub says of a card that it does not take, as it says it or in JSON."""
    with suppress(ValueError, LookupError, TypeError):
        text = "; ".join(error["message"] for error in json.loads(text)["errors"])
    return " ".join(text.split())


def upload(folder: Path, options: PublishOptions) -> str:
    """Upload a folder, and return its address. Raise UserError where the hub does not take it."""
    from huggingface_hub import HfApi, ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi()
    try:
        try:  # before there is anything on the hub: it may not know the licence
            ModelCard.load(folder / "README.md").validate()
        except ValueError as error:
            raise UserError(
                f"the hub does not take the card of {options.name}: {said_of_card(str(error))}"
            ) from None
        address = hub.create_repo(options.name, private=options.private, exist_ok=options.overwrite)
        if options.private and not hub.model_info(options.name).private:
            raise UserError(
                f"{options.name} is there already, and public: make it private on the hub, or give "
                f"another name"
            )
        hub.upload_folder(
            repo_id=options.name, folder_path=folder, commit_message="Published by ddpm",
            delete_patterns=["score-*.json", "pipeline.py", "unet/*", "scheduler/*"],  # from before
        )  # fmt: skip
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) == 409:
            raise UserError(
                f"{options.name} is on the hub already: give another name, or add --overwrite"
            ) from None
        raise UserError(f"the hub did not take {options.name}: {first_line(error)}") from None
    except Exception as error:
        if type(error).__module__.startswith(("http", "requests")):
            raise UserError(f"the hub cannot be reached: {first_line(error)}") from None
        raise
    return str(address)
