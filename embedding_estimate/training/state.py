"""What a training has reached."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import Vectors
from embedding_estimate.progress import StopReason


@dataclass
class Training:
    """What has been reached, and what happened. Several phases may train one after the other."""

    best: dict[str, Tensor]  # (N, width) by encoder
    best_error: float = 0.0  # on the select set
    saved: dict[str, Tensor] = field(default_factory=dict)
    """A copy of `best` on the CPU from the first check on: after an error of the device nothing can be read from it."""
    step: int = 0  # over all phases
    seconds: float = 0.0
    stopped: StopReason = StopReason.DONE
    losses: list[float] = field(default_factory=list)  # one per step, up to the last check
    checks: list[tuple[int, float]] = field(default_factory=list)  # (step, explained on the select set)
    stretches: list[tuple[int, str]] = field(default_factory=list)  # (steps before it, its name); see `Progress`
    notes: list[str] = field(default_factory=list)
    words_tried: list[tuple[int, float]] = field(default_factory=list)  # (number of words, emphasis explained by them)
    unread: list[Tensor] = field(default_factory=list)  # losses since the last check: to read one the device waits
    unjudged: tuple[int, dict[str, Tensor]] | None = None
    """Before the first check: the step when the loss was last looked at, and its vectors (N, width) on the CPU."""

    def keep(self, vectors: dict[str, Tensor], error: float) -> None:
        """Takes vectors (N, width) by encoder for the best so far."""
        self.best, self.best_error = vectors, error
        self.saved = on_cpu(vectors)

    def judge(self, vectors: dict[str, Tensor], error: float, explained: float) -> None:
        """Keeps vectors that are better than the best so far, and what the losses were by now."""
        if error < self.best_error:
            self.keep(vectors, error)
        elif not self.saved:
            self.keep(self.best, self.best_error)
        self.checks.append((self.step, explained))
        self.read_losses()

    def read_losses(self) -> None:
        if self.unread:
            self.losses += torch.stack(self.unread).cpu().tolist()
            self.unread.clear()

    def continued(self) -> Training:
        """Another training that goes on from here."""
        return replace(
            self,
            losses=[*self.losses],
            checks=[*self.checks],
            stretches=[*self.stretches],
            notes=[*self.notes],
            unread=[*self.unread],
        )

    def begin(self, stretch: str) -> None:
        """Notes that what follows is measured anew, unless it goes on with the same."""
        if not self.stretches or self.stretches[-1][1] != stretch:
            self.stretches.append((self.step, stretch))

    def state(self, seconds: float = 0.0) -> dict[str, Any]:
        """What `restored` goes on from; `seconds` have passed since `seconds` were last counted."""
        self.read_losses()
        return {
            "best": self.best,
            "best_error": self.best_error,
            "step": self.step,
            "seconds": self.seconds + seconds,
            "stopped": str(self.stopped),
            "losses": torch.tensor(self.losses, dtype=torch.double),
            "checks": self.checks,
            "stretches": self.stretches,
            "notes": self.notes,
            "words_tried": self.words_tried,
        }

    @classmethod
    def restored(cls, state: Tree, device: torch.device) -> Training:
        """The training of a state, its vectors on that device."""
        best = {key: value.to(device) for key, value in state["best"].items()}
        return cls(
            best=best,
            best_error=state["best_error"],
            saved=on_cpu(best) if state["checks"] else {},
            step=state["step"],
            seconds=state["seconds"],
            stopped=StopReason(state["stopped"]),
            losses=state["losses"].tolist(),
            checks=[(step, explained) for step, explained in state["checks"]],
            stretches=[(step, name) for step, name in state["stretches"]],
            notes=list(state["notes"]),
            words_tried=[(number, emphasis) for number, emphasis in state["words_tried"]],
        )

    @property
    def something_to_keep(self) -> bool:
        return bool(self.checks) or self.unjudged is not None

    def keep_what_is_known(self) -> str:
        """Where it ends early: keeps the best vectors or, where none were judged yet, the last ones known; says so."""
        if self.checks or self.unjudged is None:
            return "the best vectors before were kept"
        self.step, self.saved = self.unjudged
        self.best = self.saved
        return f"the vectors of step {self.step} were kept, before any were judged"

    def go_back(self, last_step: int) -> int:
        """Goes back to the last check, since which nothing was kept; returns the step that was being made."""
        step = min(len(self.losses) + len(self.unread) + 1, last_step)
        self.step = self.checks[-1][0] if self.checks else 0
        del self.losses[self.step :]
        self.unread.clear()
        return step


def on_cpu(vectors: Vectors) -> dict[str, Tensor]:
    """A copy of vectors (N, width) by encoder in fp32 on the CPU."""
    return {key: value.detach().float().cpu() for key, value in vectors.items()}
