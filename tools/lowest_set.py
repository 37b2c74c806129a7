"""Print the oldest versions that setup.cfg allows, as constraints for pip: `make test-lowest` installs them."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

# ray and bitsandbytes need other packages of their own time; the rest are tools
EXTRAS = ("smolvlm", "slurm", "serve")
SETUP = Path(__file__).parents[1] / "setup.cfg"
_LEAST = re.compile(r"(?P<name>[\w.-]+)(?:\[.*?\])?\s*>=\s*(?P<version>[\w.]+)")


def lowest(path: Path = SETUP) -> list[str]:
    """`name==version` of every requirement with a lower bound, of the package and of the extras that its code uses."""
    setup = configparser.ConfigParser()
    setup.read(path, encoding="utf-8")
    extras = setup["options.extras_require"]
    texts = [setup["options"]["install_requires"], *(extras[name] for name in EXTRAS)]
    found = {}
    for line in "\n".join(texts).splitlines():
        if match := _LEAST.match(line.strip()):
            found[match["name"].lower()] = f"{match['name']}=={match['version']}"
    return sorted(found.values())


if __name__ == "__main__":
    print("\n".join(lowest()))
