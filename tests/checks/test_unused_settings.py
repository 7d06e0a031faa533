"""Settings without effect: what is said of them is what a run shows."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from toy import ToyHost, ToyModel

from embedding_estimate.checks import unused_settings
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.objectives import attention
from embedding_estimate.optimizers import FULL, OPTIMIZERS
from embedding_estimate.settings import PARAMETERS, PARTS, Settings


class Sampling(ToyModel):
    """A toy whose latents depend on the sampler and the schedule by name."""

    schedules = ("Karras", "Uniform")

    def sample(self, denoise: Callable[..., torch.Tensor], *, sampler: str, schedule: str, **others: Any) -> Any:
        share = 1 + zlib.crc32(f"{sampler} {schedule}".encode()) % 97 / 1000
        return super().sample(
            lambda x, sigma, evaluation: denoise(share * x, sigma, evaluation),
            sampler=sampler,
            schedule=schedule,
            **others,
        )


def settings(**values: Any) -> Settings:
    given = {"text": "red (circle:1.8) star", "name": "madeup", "steps": 3, "learning_steps": 3, "tokens": 2}
    return Settings(**{**given, "measure": "Nothing", "schedule": "Karras", **values})


@cache
def trained(**values: Any) -> torch.Tensor:
    """The vectors, and the errors on the way, by which also a setting shows that chose no other ones."""
    host = ToyHost()
    host.model = Sampling()
    result = estimate(settings(**values), host)
    return torch.cat([result.embedding.vectors["clip_l"].flatten(), torch.tensor(result.losses)])


CHANGES = {
    "sampler": "DPM++ SDE",
    "schedule": "Uniform",
    "steps": 4,
    "guidance_scale": 3.0,
    "other_prompt": "cat",
    "batch": 1,
    "loss": "L1",
    "rate": 0.11,
    "scheduler": "linear",
    "attention_memory": 1,
    "initial_prompt": "star",
    "typed_weight": 1.2,
    "seed": 3,
    "templates": "a {}",
    "use": "Alone",
    "words": "One per weight",
    "emphasis_goal": 0.5,
    "effort": "Quick",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_said_to_have_no_effect_has_none_and_nothing_else(
    part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_megabytes", lambda model, rows: 512.0)  # as the setting has by default
    optimizer = "Adam" if name == "scheduler" else "Automatic"
    changed = {"part": part, "optimizer": optimizer, name: CHANGES[name]}
    same = torch.equal(trained(part=part, optimizer=optimizer), trained(**changed))
    said = [line for line in unused_settings.notes(settings(**changed)) if name in line.partition(":")[0].split(", ")]
    said = [line for line in said if "no effect here" in line or "only the figures" in line]
    assert bool(said) == same


INSTALLED = [name for name, row in OPTIMIZERS.items() if row.package == "torch" and name not in FULL]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", INSTALLED)
def test_a_scheduler_is_heeded_by_all_optimizers(optimizer: str) -> None:
    choice = {"part": "Transformer", "optimizer": optimizer}
    assert not torch.equal(trained(**choice), trained(**choice, scheduler="linear"))
    assert not [line for line in unused_settings.notes(settings(**choice, scheduler="linear")) if "scheduler" in line]


@pytest.mark.parametrize("part", PARTS)
def test_the_defaults_are_all_of_use(part: str) -> None:
    assert unused_settings.notes(Settings(text="red", name="x", part=part)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"sampler": "DPM++ SDE"},
            ["sampler: no effect here, because the Attention part always uses Euler"],
        ),
        ({"sampler": "DPM++ SDE", "part": "Attention + U-Net"}, []),
        (
            {"attention_memory": 8, "part": "U-Net"},
            ["attention_memory: no effect here, because the U-Net part records no rows of attention"],
        ),
        (
            {"part": "Transformer", "schedule": "DDIM", "batch": 8, "checkpointing": True},
            ["schedule, batch, checkpointing: no effect here, because the Transformer part uses no latents"],
        ),
        ({"part": "Transformer", "text": "[red:blue:5]", "steps": 20}, []),  # of which 5 is a share
        (
            {"token_source": "Initial prompt", "initial_prompt": "red", "tokens": 9},
            ["tokens: no effect here, because token_source takes the number of vectors from the initial prompt"],
        ),
        (
            {"rate": 0.5},
            [
                "rate=0.5: LBFGS finds the length of each step by a line search; the rate is only its first "
                "guess; 0 chooses a fitting rate"
            ],
        ),
        ({"rate": 0.5, "part": "U-Net"}, []),
        (
            {"rate": 0.5, "optimizer": "Prodigy"},
            ["rate=0.5: Prodigy finds its own rate and multiplies it by this one; 0 chooses a fitting rate"],
        ),
        ({"guidance_scale": 1.0}, []),
        (
            {"guidance_scale": 1.0, "other_prompt": "grey"},
            ["guidance_scale=1 draws the latents without the negative prompt, so only the figures use other_prompt"],
        ),
        ({"save_every": 80, "preview_every": 80}, []),
        (
            {"save_every": 81},
            ["save_every=81: there are 80 learning steps in all, so there will be no snapshots"],
        ),
        (
            {"preview_every": 30, "learning_steps": 20, "part": "U-Net"},
            ["preview_every=30: there are 20 learning steps in all, so there will be no previews"],
        ),
        (
            {"preview_every": 30, "learning_steps": 20, "part": "Attention + U-Net"},
            [],
        ),  # whose second part takes 10 more
        (
            {"save_every": 10, "typed_weight": 0.0},
            ["save_every=10: no snapshots are saved while the best typed weight is searched"],
        ),
        (
            {"emphasis_goal": 0.5},
            ["emphasis_goal: no effect here, because it applies only to words='As few as needed'"],
        ),
        ({"emphasis_goal": 0.5, "words": "As few as needed"}, []),
        ({"effort": "Quick", "seconds": 60.0}, ["effort: no effect here, because seconds choose it"]),
        ({"effort": "Quick"}, []),
        (
            {"part": "Transformer", "seconds": 60.0, "learning_steps": 9, "measure": "Quick"},
            ["seconds: no effect here, because the learning steps and what is measured are set"],
        ),
        ({"seconds": 60.0, "save_every": 100}, []),
        (
            {"seconds": 60.0, "save_every": 161},
            ["save_every=161: there are 160 learning steps in all, so there will be no snapshots"],
        ),
        ({"prompt_type": "Negative Prompt", "other_prompt": "a cat"}, []),
        (
            {"prompt_type": "Negative Prompt"},
            [
                "other_prompt is empty: the negative embedding is trained with an empty positive prompt; give a few "
                "of the positive prompts that you will use it with, one per line"
            ],
        ),
    ],
)
def test_each_is_told_in_a_line(values: dict[str, Any], said: list[str]) -> None:
    assert unused_settings.notes(Settings(**{"text": "red", "name": "x", **values})) == said


def test_every_setting_that_trains_is_tried() -> None:
    """A new setting is to be looked at here too."""
    elsewhere = {"text", "prompt_type", "part", "tokens", "token_source", "optimizer", "learning_steps"}  # no way out
    before = {"seconds"}  # the training, for its effort
    about_files = {"name", "overwrite", "format", "save_every", "preview_every", "measure", "private"}
    by_the_model = {"checkpointing", "early_stop", "width", "height"}
    names = {parameter.name for parameter in PARAMETERS}
    assert names == elsewhere | before | about_files | by_the_model | CHANGES.keys()
