"""Learning rates that were learned with a distilled set: `lr: file`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from search_spaces import ConfigError
from search_spaces.files import distilled_hash
from trainables.isolated import look_apart


def learned_rate(path: str) -> float:
    """The learning rate that lies beside a distilled set, or in its file.

    Args:
        path: Of the set, a file or folder.

    Raises:
        ConfigError: If there is none, with the files that were looked for, or it is not positive.
    """
    try:
        return _read(path, distilled_hash(path))
    except (ValueError, OSError) as err:
        raise ConfigError(f"fixed.lr: file: {err}") from err


@lru_cache(maxsize=64)
def _read(path: str, content: str) -> float:
    """As `learned_rate`, once for each content."""
    place = Path(path).expanduser()
    file, rate = look_apart(place, lambda: _look(place))
    if rate is None:
        images = Path(file)
        named = images.name.replace("images", "lr") if "images" in images.name else "lr.pt"
        raise ValueError(
            f"no learned rate belongs to {path}; looked for {images.parent / named}, for a single *lr*.pt there, and for a key "
            "lr, syn_lr or learned_lr in the file. Give a number."
        )
    if not rate > 0:
        raise ValueError(f"`learned rate > 0` must hold, got {rate:g} of {path}; give a number.")
    return float(rate)


def _look(place: Path) -> tuple[str, float | None]:
    """The file of the images, and the rate that was learned with them."""
    from trainables.formats.recognise import recognise_path  # loads torch

    found = recognise_path(place)
    return str(found.file or place), found.details.get("learned_lr")
