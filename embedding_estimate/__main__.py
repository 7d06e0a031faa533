"""The command line: `embedding-estimate` and `python -m embedding_estimate`."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Runs the command line if its packages are installed. The extension and the core do not need them."""
    if find_spec("click") is None:
        sys.exit(
            'embedding-estimate: the command line is not installed; run pip install "embedding-estimate[app]", '
            'or pip install -e ".[app]" in a checkout'
        )
    from embedding_estimate.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
