"""Leaves averaged over the steps of an optimizer, the last steps most.

Where each step draws anew, the draws of single steps throw the leaves to and fro, the more the longer the steps are;
in an average (Polyak & Juditsky 1992) that cancels out, so that steps may be longer. The old ones are forgotten
exponentially, and what is missing of them in the beginning is made up for as in Adam (Kingma & Ba 2015, section 3).
"""

from __future__ import annotations

from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import Vectors

AVERAGED = 0.9  # how much each step leaves of the average before it


class Average:
    """Of n steps the i-th has the weight (1 - d) d^(n - i) / (1 - d^n), d being the decay; the start has none."""

    def __init__(self, current: Vectors, decay: float):
        """Of leaves that an optimizer changes in place. With a decay of 0 the average is what they are."""
        self.leaves = {key: leaf.detach().clone() for key, leaf in current.items()}
        self._current = current
        self._decay = decay
        self._steps = 0

    def update(self) -> None:
        """Once after each step."""
        self._steps += 1
        weight = (1 - self._decay) / (1 - self._decay**self._steps)
        for key, leaf in self._current.items():
            self.leaves[key].lerp_(leaf.detach(), weight)

    def state(self) -> Tree:
        """What `restore` goes on from."""
        return {"leaves": self.leaves, "steps": self._steps}

    def restore(self, state: Tree) -> None:
        self._steps = state["steps"]
        for key, leaf in self.leaves.items():
            leaf.copy_(state["leaves"][key])
