"""What a training step costs, beside a bare forward and backward pass of the same models on the same shapes.

The trainer's own loop is timed. After each of its steps a bare one runs, and now and then a larger one to compare with
(the reference's for the U-Net part, the U-Net's for the parts that do without it), so that whatever else the machine
does falls on all of them alike; the ratio is the median over such pairs.

All parts are timed with Adam, whose step is one evaluation of loss and gradient. LBFGS, the Attention part's own
optimizer, takes from one to several in a step, as its line search goes: its steps have no one cost.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.random_models import random_sd15
from benchmarks.reference import Reference
from embedding_estimate.demo import demo_model_path
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.model.host import Vectors
from embedding_estimate.model.meter import Meter
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives import preparation_of
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import PARTS, Settings
from embedding_estimate.teaching.batches import USUAL
from embedding_estimate.teaching.plan import phases
from embedding_estimate.teaching.probes import LayerProbes, heads
from embedding_estimate.teaching.teacher import Task, Teacher
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.loop import train
from embedding_estimate.training.start import starting_vectors
from embedding_estimate.training.state import Training

TEXT = "(blurry:1.4), a (large:1.3) orange triangle, on a blue background"
TOKENS = 11
LARGER_EVERY = 4  # steps
REFERENCE_RATE = 1e-4  # changes nothing of what is timed
SINGLE_PARTS = tuple(part for part in PARTS if " + " not in part)
OF_BARE, OF_REFERENCE, OF_UNET = 1.1, 0.25, 1 / 20  # at most
REAL_LATENT = "64x64"  # Stable Diffusion 1.5's own, at which a step is judged against the U-Net's


@dataclass(frozen=True)
class Row:
    """What a step of one part costs. Seconds are medians."""

    model: str
    part: str
    batch: int  # states per step; for the parts that have none there, of the preparation
    latent: str
    seconds: float
    seconds_bare: float
    of_bare: float
    seconds_reference: float | None  # for its one state; None for the parts without states
    per_state_of_reference: float | None
    seconds_unet: float | None  # a bare forward and backward pass of the U-Net for one state; None for its own part
    of_unet: float | None


class Bare:
    """A part's models called directly; loss = mean of the output's square; gradients for N vectors only.

    The U-Net part runs text encoder and U-Net, the Attention part the text encoder and the attention of as many
    queries as `probes` hold, the Transformer part the text encoder.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        part: str,
        *,
        tokens: int,
        batch: int,
        latent: tuple[int, int],
        probes: Sequence[LayerProbes] = (),
    ):
        (encoder,) = loaded.text_encoders.values()
        self.encoder = encoder.model
        self.unet = loaded.unet if part == "U-Net" else None
        by_queries = {module.to_q: module for module in _cross_attentions(loaded.unet)}
        self.layers = [
            (
                [by_queries[attention.to_q] for attention in alike.attentions],
                torch.randn_like(alike.queries),
                torch.randn_like(alike.gradients),
            )
            for alike in probes
        ]
        self.table = self.encoder.get_input_embeddings()  # (V, width)
        pad = encoder.tokenizer.pad_token_id
        self.ids = torch.full((1, encoder.tokenizer.model_max_length), pad, device=loaded.device)  # (1, L)
        self.vectors = self.table.weight[pad].repeat(tokens, 1).requires_grad_()  # (N, width)
        shape = (batch, loaded.unet.config.in_channels, *latent)
        self.x = torch.randn(shape).to(loaded.device, loaded.dtype)
        self.timestep = torch.linspace(0, 999, batch, device=loaded.device)

    def step(self) -> None:
        hook = self.table.register_forward_hook(self._splice)
        output = self.encoder(self.ids).last_hidden_state  # (1, L, C)
        hook.remove()
        if self.unet is not None:
            context = output.to(self.x.dtype).expand(len(self.x), -1, -1)
            output = self.unet(self.x, self.timestep, context, return_dict=False)[0]
        elif self.layers:
            output = torch.cat([self._read(*layer, output.to(self.x.dtype)) for layer in self.layers])
        self.vectors.grad = None
        output.square().mean().backward()

    def _splice(self, module: torch.nn.Module, inputs: Any, rows: Tensor) -> Tensor:
        """The vectors behind the begin mark: rows (1, L, width)."""
        return torch.cat([rows[:, :1], self.vectors[None], rows[:, 1 + len(self.vectors) :]], dim=1)

    @staticmethod
    def _read(modules: Sequence[Any], queries: Tensor, gradients: Tensor, context: Tensor) -> Tensor:
        """What queries (A, H, R, d) of A modules gather of the context (1, L, C), times the gradients: (A * R,)."""
        keys = heads(torch.cat([module.to_k(context) for module in modules]), queries.shape[1])  # (A, H, L, d)
        values = heads(torch.cat([module.to_v(context) for module in modules]), queries.shape[1])
        gathered = (queries @ (keys / keys.shape[-1] ** 0.5).transpose(2, 3)).softmax(-1) @ values
        products: Tensor = gathered * gradients  # (A, H, R, d)
        return products.sum(dim=(1, 3)).flatten()


def _cross_attentions(unet: Any) -> list[Any]:
    return [module for name, module in unet.named_modules() if name.endswith("attn2")]


def cost(loaded: LoadedModel, settings: Settings) -> Row:
    """Times the steps of the trainer's own loop, but for the first."""
    steps: list[float] = []
    bares: list[float] = []
    larger: list[float] = []

    with StandaloneHost.of(loaded).borrow() as borrowed:
        stop = StopToken()
        model = Meter(borrowed)
        task = Task.of(settings, model)
        start = starting_vectors(settings, model)
        *_, phase = phases(settings)
        objective = preparation_of(phase, Teacher(model, task)).prepare(start)
        latent = (task.height // model.info.latent_scale, task.width // model.info.latent_scale)
        probes = objective.draw(torch.Generator())[0].probes.layers if settings.part == "Attention" else ()
        bare = Bare(loaded, settings.part, tokens=TOKENS, batch=settings.batch, latent=latent, probes=probes)
        compared = _larger(loaded, settings.part, latent, Reference(model, task, settings.seed), start)
        began = _now(loaded)

        def after_step(teacher: Teacher, vectors: Vectors, step: int) -> None:
            nonlocal began
            steps.append(_now(loaded) - began)
            bares.append(_seconds(loaded, bare.step))
            if step % LARGER_EVERY == 0:
                larger.append(_seconds(loaded, compared))
            began = _now(loaded)

        watch = Watch(
            on_progress=lambda progress: None,
            on_snapshot=lambda training, teacher, step: None,
            stop=stop,
            on_preview=after_step,
            preview_every=settings.preview_every,
        )
        train(Training(start), objective, VectorSpace.of(model), watch)

    seconds, seconds_larger = statistics.median(steps[1:]), statistics.median(larger)
    with_states = settings.part == "U-Net"
    return Row(
        model=loaded.name,
        part=settings.part,
        batch=settings.batch,
        latent="x".join(map(str, latent)),
        seconds=seconds,
        seconds_bare=statistics.median(bares[1:]),
        of_bare=statistics.median(mine / its for mine, its in zip(steps[1:], bares[1:], strict=True)),
        seconds_reference=seconds_larger if with_states else None,
        per_state_of_reference=seconds / settings.batch / seconds_larger if with_states else None,
        seconds_unet=None if with_states else seconds_larger,
        of_unet=None if with_states else seconds / seconds_larger,
    )


def _larger(
    loaded: LoadedModel, part: str, latent: tuple[int, int], reference: Reference, start: Vectors
) -> Callable[[], Any]:
    """The step that a part's own is compared with: the reference's, or the U-Net's for one state."""
    if part == "U-Net":
        learning = reference.learn(start, REFERENCE_RATE)
        return lambda: next(learning)
    return Bare(loaded, "U-Net", tokens=TOKENS, batch=1, latent=latent).step


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
    """Whether steps are as cheap as they have to be: any against a bare one, some against a larger one."""
    gates = []
    for row in rows:
        limits = {"of_bare": OF_BARE}
        if row.part == "U-Net" and row.batch == USUAL:
            limits["per_state_of_reference"] = OF_REFERENCE
        if row.part == "Attention" and row.latent == REAL_LATENT:
            limits["of_unet"] = OF_UNET
        where = f"{row.model}, {row.part}, batch {row.batch}"
        for figure, most in limits.items():
            value = getattr(row, figure)
            gate = {"where": where, "figure": figure, "value": value, "to_reach": f"<= {most}"}
            gates.append({**gate, "reached": value <= most})
    return {"gates": gates}


def _line(row: Row) -> str:
    told = (
        f"{row.model}, {row.part}, batch {row.batch}, latent {row.latent}: a step {row.seconds:.4f} s, "
        f"bare {row.seconds_bare:.4f} s, ratio {row.of_bare:.3f}"
    )
    if row.seconds_reference is not None:
        told += f"; the reference's {row.seconds_reference:.4f} s, ratio per state {row.per_state_of_reference:.3f}"
    if row.seconds_unet is not None:
        told += f"; the U-Net's {row.seconds_unet:.4f} s, ratio {row.of_unet:.3f}"
    return told


def _gate_line(gate: dict[str, Any]) -> str:
    told = "reached" if gate["reached"] else "MISSED"
    return f"{gate['where']}: {gate['figure']} {gate['value']:.3f}, to reach {gate['to_reach']}: {told}"


@click.command(help=__doc__)
@click.option("--model", help="A folder or checkpoint of SD1 or SD2.  [default: the demo model]")
@click.option("--shape", type=click.Choice(["model", "sd15"]), default="model", show_default=True,
              help="sd15: random weights in SD1.5's real shape instead of a model.")  # fmt: skip
@click.option("--latent", default=16, show_default=True, type=click.IntRange(8, 128),
              help="Cells along one side with --shape sd15, whose own are 64; a step of the U-Net then takes a CPU "
              "15 s.")  # fmt: skip
@click.option("--device", help="CUDA means fp16.  [default: the CPU for sd15, the best for a model]")
@click.option("--parts", default=",".join(SINGLE_PARTS), show_default=True, help="With commas.")
@click.option("--steps", default=40, show_default=True, type=click.IntRange(8), help="Training steps to time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last; the table goes to stderr.")
def main(model: str | None, shape: str, latent: int, device: str | None, parts: str, steps: int, as_json: bool) -> None:
    if unknown := set(parts.split(",")) - set(SINGLE_PARTS):
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(SINGLE_PARTS)}", param_hint="--parts")
    loaded = random_sd15(device or "cpu") if shape == "sd15" else load(model or demo_model_path(), device=device)
    if len(loaded.text_encoders) > 1:
        raise click.BadParameter("SDXL is not timed: choose a model with one text encoder", param_hint="--model")
    size = latent * 8 if shape == "sd15" else 0
    with_states = (1, USUAL) if shape == "sd15" else (USUAL,)
    rows = []
    for part, batch in [(p, b) for p in parts.split(",") for b in (with_states if p == "U-Net" else (1,))]:
        settings = Settings(
            text=TEXT,
            part=part,
            tokens=TOKENS,
            batch=batch,
            optimizer="Adam",
            learning_steps=steps,
            preview_every=1,  # unlike a snapshot it comes without a check
            steps=1,
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
