"""How faithful and how quick an estimate is: `python -m benchmarks.fidelity`, `python -m benchmarks.step_cost`."""
