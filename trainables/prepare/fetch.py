"""`python -m trainables.prepare.fetch CACHE < wanted.json`: download real data with a name, in a process of its own."""

import json
import sys
from pathlib import Path

from trainables.data.named import open_named


def main() -> int:
    """Fetch what standard input asks for, a list of {"real": NAME, "root": PATH, "download": BOOL}; says where it is."""
    try:
        for one in json.load(sys.stdin):
            print(f"{one['real']}: downloading to {one['root']}", file=sys.stderr, flush=True)
            for part in ("train", "evaluation"):
                open_named(one["real"], Path(one["root"]).expanduser(), part, download=one["download"])
    except ValueError as err:
        print(err)  # the driver says it, once
        return 2
    print("{}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
