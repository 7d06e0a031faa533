"""How faithful and how quick an estimate is: `python -m benchmarks.fidelity`, `python -m benchmarks.step_cost`."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does
