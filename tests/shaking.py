"""Other seeds than the tests' own, with which nothing holds that held by luck.

`SHAKE=7` in the environment adds 7 to the seed of each random model and input that the tests draw, to the
seed of torch before each test, and seeds Hypothesis. Without it every seed is the test's own.
"""

import os

SHAKE = int(os.environ.get("SHAKE") or 0)


def shaken(seed: int) -> int:
    """The seed of this run where a test's own is `seed`."""
    return seed + SHAKE
