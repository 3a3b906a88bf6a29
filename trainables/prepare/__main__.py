"""`python -m trainables.prepare CACHE [--leave-labels] < recipes.json`: in a process of its own, so that a driver needs no torch."""

import json
import os
import sys
from pathlib import Path

import torch

from trainables.prepare import prepare


def main() -> int:
    """Prepare the recipes on standard input ({key: recipe}); what is known about each is the last line printed."""
    cache, leave_labels = Path(sys.argv[1]), "--leave-labels" in sys.argv

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    torch.set_num_threads(os.cpu_count() or 1)
    try:
        recipes = json.load(sys.stdin)
        about = {key: prepare(key, recipe, cache, say, leave_labels=leave_labels) for key, recipe in recipes.items()}
    except ValueError as err:
        print(err)  # the driver says it, once
        return 2
    print(json.dumps(about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
