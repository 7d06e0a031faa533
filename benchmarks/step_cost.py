"""What a training step costs, beside a bare forward and backward pass of the same models on the same shapes.

The trainer's own loop is timed. After each of its steps a bare one runs, and now and then one of the reference's, so
that whatever else the machine does falls on all of them alike; the ratio is the median over such pairs.
"""

from __future__ import annotations

import json
import statistics
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.random_sd15 import random_sd15
from benchmarks.reference import Reference
from embedding_estimate.demo import demo_model_path
from embedding_estimate.embedding import Embedding
from embedding_estimate.host import BorrowedModel
from embedding_estimate.hosts.standalone.conditioner import Conditioner
from embedding_estimate.hosts.standalone.host import StandaloneHost, StandaloneModel
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.initial import starting_vectors
from embedding_estimate.objectives import make_objective
from embedding_estimate.optimizers import make_loss
from embedding_estimate.progress import Meter, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teacher import Task, Teacher
from embedding_estimate.training import Job, Training, train
from embedding_estimate.vectors import VectorSpace

TEXT = "(blurry:1.4), a (large:1.3) orange triangle, on a blue background"
TOKENS = 11
SD15_SIZE = 128  # pixels: latents of 16x16
REFERENCE_EVERY = 4  # steps
REFERENCE_RATE = 1e-4  # changes nothing of what is timed
DEFAULT = Settings()
OF_BARE, OF_REFERENCE = 1.1, 0.25  # at most


@dataclass(frozen=True)
class Row:
    """What a step of one part costs. Seconds are medians."""

    model: str
    part: str
    batch: int  # states per step
    latent: str
    seconds: float
    seconds_bare: float
    of_bare: float
    seconds_reference: float  # for its one state
    per_state_of_reference: float | None  # None for the Transformer part, which has no states


class Bare:
    """Text encoder and U-Net called directly; loss = mean of the output's square; gradients for N vectors only."""

    def __init__(self, loaded: LoadedModel, settings: Settings, latent: tuple[int, int]):
        (encoder,) = loaded.text_encoders.values()
        self.encoder = encoder.model
        self.unet = loaded.unet if settings.part == "U-Net" else None
        self.table = self.encoder.get_input_embeddings()  # (V, width)
        pad = encoder.tokenizer.pad_token_id
        self.ids = torch.full((1, encoder.tokenizer.model_max_length), pad, device=loaded.device)  # (1, L)
        self.vectors = self.table.weight[pad].repeat(settings.tokens, 1).requires_grad_()  # (N, width)
        shape = (settings.batch, loaded.unet.config.in_channels, *latent)
        self.x = torch.randn(shape).to(loaded.device, loaded.dtype)
        self.timestep = torch.linspace(0, 999, settings.batch, device=loaded.device)

    def step(self) -> None:
        hook = self.table.register_forward_hook(self._splice)
        output = self.encoder(self.ids).last_hidden_state  # (1, L, C)
        hook.remove()
        if self.unet is not None:
            context = output.to(self.x.dtype).expand(len(self.x), -1, -1)
            output = self.unet(self.x, self.timestep, context, return_dict=False)[0]
        self.vectors.grad = None
        output.square().mean().backward()

    def _splice(self, module: torch.nn.Module, inputs: Any, rows: Tensor) -> Tensor:
        """The vectors behind the begin mark: rows (1, L, width)."""
        return torch.cat([rows[:, :1], self.vectors[None], rows[:, 1 + len(self.vectors) :]], dim=1)


def cost(loaded: LoadedModel, settings: Settings) -> Row:
    """Times the steps of the trainer's own loop, but for the first."""
    steps: list[float] = []
    bares: list[float] = []
    references: list[float] = []

    with _host(loaded).borrow() as borrowed:
        stop = StopToken()
        model = typing.cast(BorrowedModel, Meter(borrowed))
        task = Task.of(settings, model)
        start = starting_vectors(settings, model)
        objective = make_objective(settings, Teacher(model, task), make_loss(settings.loss))
        objective.prepare(start)
        latent = (task.height // model.info.latent_scale, task.width // model.info.latent_scale)
        bare = Bare(loaded, settings, latent)
        theirs = Reference(model, task, settings.seed).learn(start, REFERENCE_RATE)
        began = _now(loaded)

        def after_step(embedding: Embedding, step: int) -> None:
            nonlocal began
            steps.append(_now(loaded) - began)
            bares.append(_seconds(loaded, bare.step))
            if step % REFERENCE_EVERY == 0:
                references.append(_seconds(loaded, lambda: next(theirs)))
            began = _now(loaded)

        train(Training(start), objective, VectorSpace.of(model), Job(settings, lambda progress: None, after_step, stop))

    seconds = statistics.median(steps[1:])
    reference = statistics.median(references)
    return Row(
        model=loaded.name,
        part=settings.part,
        batch=settings.batch,
        latent="x".join(map(str, latent)),
        seconds=seconds,
        seconds_bare=statistics.median(bares[1:]),
        of_bare=statistics.median(mine / its for mine, its in zip(steps[1:], bares[1:], strict=True)),
        seconds_reference=reference,
        per_state_of_reference=seconds / settings.batch / reference if settings.part == "U-Net" else None,
    )


def _host(loaded: LoadedModel) -> StandaloneHost:
    conditioner = Conditioner(loaded, emphasis="Original", clip_skip=1, embeddings={})
    modules = [loaded.unet, loaded.vae, *(encoder.model for encoder in loaded.text_encoders.values())]
    return StandaloneHost(StandaloneModel(loaded, conditioner, emphasis="Original", clip_skip=1), modules)


def _now(loaded: LoadedModel) -> float:
    """The clock, once the device has done what it was asked for."""
    if loaded.device.type == "cuda":
        torch.cuda.synchronize(loaded.device)
    return time.perf_counter()


def _seconds(loaded: LoadedModel, run: Callable[[], Any]) -> float:
    began = _now(loaded)
    run()
    return _now(loaded) - began


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Whether steps are as cheap as they have to be: any against a bare one, the default's against the reference's."""
    gates = []
    for row in rows:
        limits = {"of_bare": OF_BARE}
        if row.part == DEFAULT.part and row.batch == DEFAULT.batch:
            limits["per_state_of_reference"] = OF_REFERENCE
        where = f"{row.model}, {row.part}, batch {row.batch}"
        for figure, most in limits.items():
            value = getattr(row, figure)
            gate = {"where": where, "figure": figure, "value": value, "to_reach": f"<= {most}"}
            gates.append({**gate, "reached": value <= most})
    return {"gates": gates}


def _line(row: Row) -> str:
    ratio = row.per_state_of_reference
    return (
        f"{row.model}, {row.part}, batch {row.batch}, latent {row.latent}: a step {row.seconds:.4f} s, "
        f"bare {row.seconds_bare:.4f} s, ratio {row.of_bare:.3f}; the reference's {row.seconds_reference:.4f} s"
        + ("" if ratio is None else f", ratio per state {ratio:.3f}")
    )


def _gate_line(gate: dict[str, Any]) -> str:
    told = "reached" if gate["reached"] else "MISSED"
    return f"{gate['where']}: {gate['figure']} {gate['value']:.3f}, to reach {gate['to_reach']}: {told}"


@click.command(help=__doc__)
@click.option("--model", help="A folder or checkpoint of SD1 or SD2.  [default: the demo model]")
@click.option("--shape", type=click.Choice(["model", "sd15"]), default="model", show_default=True,
              help="sd15: random weights in SD1.5's real shape instead of a model.")  # fmt: skip
@click.option("--steps", default=40, show_default=True, type=click.IntRange(8), help="Training steps to time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last; the table goes to stderr.")
def main(model: str | None, shape: str, steps: int, as_json: bool) -> None:
    loaded = random_sd15() if shape == "sd15" else load(model or demo_model_path())
    size = SD15_SIZE if shape == "sd15" else 0
    batches = (1, DEFAULT.batch) if shape == "sd15" else (DEFAULT.batch,)
    if len(loaded.text_encoders) > 1:
        raise click.BadParameter("SDXL is not timed: choose a model with one text encoder", param_hint="--model")
    rows = []
    for part, batch in [*(("U-Net", batch) for batch in batches), ("Transformer", 1)]:
        settings = Settings(
            text=TEXT,
            part=part,
            tokens=TOKENS,
            batch=batch,
            learning_steps=steps,
            save_every=1,
            sampler="Euler",
            steps=2,
            width=size,
            height=size,
        )
        rows.append(row := cost(loaded, settings))
        click.echo(_line(row), err=as_json)
    summary = summarise(rows)
    for gate in summary["gates"]:
        click.echo(_gate_line(gate), err=as_json)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows], "summary": summary}))


if __name__ == "__main__":
    main()
