"""Whether there is data of a name, told without torch."""

import os

from ..config import NAMED_SETS
from ..utils.errors import UserError, did_you_mean

HUB_PREFIX = "hf:"


def require_data(source: str) -> None:
    """Raise UserError where nothing can be of that name: no named set, file, folder or hub's."""
    if source in NAMED_SETS or source.startswith(HUB_PREFIX):
        return
    if not os.path.exists(os.path.expanduser(source)):  # False even for names that no file can have
        names = ", ".join([*NAMED_SETS, f"{HUB_PREFIX}OWNER/NAME"])
        raise UserError(
            f"there is no data at {source}; name a file or folder, or {names}"
            f"{did_you_mean(source, NAMED_SETS)}"
        )
