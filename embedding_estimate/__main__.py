"""The command line: `embedding-estimate` and `python -m embedding_estimate`."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Runs the command line, where what it needs is installed: the extension and the core do without."""
    if find_spec("click") is None:
        sys.exit('embedding-estimate: the command line is not installed; pip install "embedding-estimate[app]"')
    from embedding_estimate.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
