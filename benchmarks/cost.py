"""What an estimate costs, and how that grows: passes of the U-Net, seconds and memory of each stage.

One row is the base, and each other row differs from it in one thing: the number of vectors, the length of the prompt,
the size of the picture, the model, the training part or the effort. All weights are random. Each row runs in a process
of its own and beside it a picture is generated, whose memory is compared with. Adam trains, whose step is one
evaluation.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import torch

from benchmarks.memory import MIB, apart, forget_peak, generate_image, in_use, peak
from benchmarks.random_models import SHAPES, SMALL
from embedding_estimate.estimation.listener import NOBODY
from embedding_estimate.estimation.opening import opening
from embedding_estimate.estimation.phase import train_phase
from embedding_estimate.estimation.trainer import measured
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.model.meter import Meter, Passes, Stage
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import EFFORTS, PARTS, Settings
from embedding_estimate.teaching.plan import phases
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.state import Training

MODELS = {**SMALL, **SHAPES}
STAGES: tuple[Stage, ...] = ("prepare", "train", "measure")
MOST_MEMORY = 1.5  # of generating a picture
MOST_MEMORY_UNET = 2.0  # in the U-Net part, which goes through the U-Net with checkpoints
SAME = 1.25  # at most the ratio of two steps that should take as long
NOTHING = "Nothing"


@dataclass(frozen=True)
class Extent:
    """What all rows have in common."""

    learning_steps: int
    sampling_steps: int
    measure: str


@dataclass(frozen=True)
class Case:
    """What is estimated."""

    model: str
    part: str
    tokens: int  # N
    prompt_tokens: int
    latent: int  # cells along one side
    effort: str = "Balanced"

    def settings(self, extent: Extent) -> Settings:
        """Those of the estimate. Each word of the prompt is one of CLIP's tokens."""
        return Settings(
            text=" ".join(["(red:1.4)", *["circle"] * (self.prompt_tokens - 1)]),
            part=self.part,
            effort=self.effort,
            tokens=self.tokens,
            optimizer="Adam",
            learning_steps=extent.learning_steps,
            steps=extent.sampling_steps,
            width=self.latent * 8,
            height=self.latent * 8,
            checkpointing=self.part == "U-Net",
            name="measured",
            measure=extent.measure,
        )


@dataclass(frozen=True)
class Cost:
    """One stage, or generating a picture."""

    passes: Passes
    seconds: float
    mib: float  # at most, on top of the model


@dataclass(frozen=True)
class Row:
    """A case and what it costs."""

    case: Case
    device: str
    steps: int
    stages: dict[str, Cost]
    image: Cost

    @property
    def seconds_per_step(self) -> float:
        """Of the training, its checks included."""
        return self.stages["train"].seconds / self.steps

    @property
    def of_image(self) -> float:
        """The largest memory of preparing and training over that of generating a picture."""
        return max(self.stages[stage].mib for stage in ("prepare", "train")) / max(self.image.mib, 1e-9)


class StageMeter(Meter):
    """A meter that also takes the time and the largest memory of each stage."""

    def __init__(self, model: BorrowedModel):
        super().__init__(model)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.bytes = dict.fromkeys(STAGES, 0)  # on top of what was in use at the start
        self._before = in_use(model.device)
        self._began = self._now()
        forget_peak(model.device)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        self._account()
        with super().stage(stage):
            try:
                yield
            finally:
                self._account()

    def _account(self) -> None:
        """Adds what was since the last time to the current stage."""
        now = self._now()
        self.seconds[self._stage] += now - self._began
        self.bytes[self._stage] = max(self.bytes[self._stage], peak(self.device) - self._before)
        self._began = now
        forget_peak(self.device)

    def _now(self) -> float:
        """Seconds; on a CPU those that this process computed, which other programs lengthen little."""
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def cost(self, stage: Stage) -> Cost:
        """What a stage has cost so far."""
        return Cost(getattr(self.passes, stage), self.seconds[stage], self.bytes[stage] / MIB)


def cost(case: Case, extent: Extent, device: str) -> Row:
    """Generates a picture and makes an estimate in this process, whose memory is all counted."""
    loaded = MODELS[case.model](device)
    settings = case.settings(extent)
    with StandaloneHost.of(loaded).borrow() as model:
        gc.collect()
        picture = StageMeter(model)
        with picture.stage("measure"):
            generate_image(picture, settings.width)
        gc.collect()
        meter = StageMeter(model)
        steps = _estimate(settings, meter)
        return Row(
            case,
            loaded.device.type,
            steps,
            {stage: meter.cost(stage) for stage in STAGES},
            picture.cost("measure"),
        )


def _estimate(settings: Settings, meter: StageMeter) -> int:
    """What `trainer.estimate` does; the number of steps."""
    begun = opening(settings, meter, NOBODY)
    settings, teacher = begun.settings, begun.teacher
    training, space = Training(dict(begun.start)), VectorSpace.of(meter)
    watch = Watch(on_progress=lambda progress: None, on_snapshot=lambda training, teacher, step: None, stop=StopToken())
    with meter.stage("train"):
        *before, last = phases(settings)
        for phase in (*before, last):
            training, teacher = train_phase(
                training, begun.plans, begun.start, phase, watch, teacher, space, meter, last=phase is last
            )
    if settings.measure_used != NOTHING:
        with meter.stage("measure"):
            measured(settings, teacher, training.best, NOBODY, ())
    return training.step


def cases(
    models: Sequence[str],
    parts: Sequence[str],
    tokens: Sequence[int],
    prompt_tokens: Sequence[int],
    latents: Sequence[int],
    efforts: Sequence[str],
) -> list[Case]:
    """The base, which has the first of each, and those that differ from it in one thing."""
    base = Case(models[0], parts[0], tokens[0], prompt_tokens[0], latents[0], efforts[0])
    values: dict[str, Sequence[Any]] = {
        "model": models,
        "part": parts,
        "tokens": tokens,
        "prompt_tokens": prompt_tokens,
        "latent": latents,
        "effort": efforts,
    }
    return [base, *(replace(base, **{name: value}) for name, more in values.items() for value in more[1:])]


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Whether the cost grows as it should: each row against the base, which is the first."""
    base, *others = rows
    gates = []

    def gate(row: Row, figure: str, value: float, most: float) -> None:
        found = {"row": asdict(row.case), "figure": figure, "value": value, "to_reach": f"<= {most:.3g}"}
        gates.append({**found, "reached": value <= most})

    for row in rows:
        gate(row, "memory of a picture's", row.of_image, MOST_MEMORY_UNET if row.case.part == "U-Net" else MOST_MEMORY)
    for row in others:
        if row.case == replace(base.case, prompt_tokens=row.case.prompt_tokens):
            gate(row, "a step of the base's", row.seconds_per_step / base.seconds_per_step, SAME)
        if row.case == replace(base.case, latent=row.case.latent):
            pixels = (row.case.latent / base.case.latent) ** 2
            preparing = row.stages["prepare"].seconds / base.stages["prepare"].seconds
            gate(row, "preparing of the base's, by pixels", preparing / max(pixels, 1 / pixels), SAME)
    return {"gates": gates}


WHERE = f"{'model':11}{'part':12}{'effort':9}{'N':>4}{'prompt':>8}{'latent':>9}"
HEAD = f"{WHERE} {'stage':9}{'forward':>8}{'back':>6}{'s':>9}{'MiB':>8}"


def _lines(row: Row) -> Iterator[str]:
    case = row.case
    sizes = f"{case.tokens:>4}{case.prompt_tokens:>8}{case.latent:>5}x{case.latent:<3}"
    where = f"{case.model:11}{case.part:12}{case.effort:9}{sizes}"
    for name, one in {**row.stages, "a picture": row.image}.items():
        numbers = f"{one.passes.forwards:>8}{one.passes.backwards:>6}{one.seconds:>9.2f}{one.mib:>8.0f}"
        yield f"{where:{len(WHERE)}} {name:9}{numbers}"
        where = ""
    yield f"{'':{len(WHERE)}}  a step {row.seconds_per_step:.4f} s; memory {row.of_image:.2f} of a picture's"


def _gate_line(gate: dict[str, Any]) -> str:
    told = "reached" if gate["reached"] else "MISSED"
    where = ", ".join(map(str, gate["row"].values()))
    return f"{where}: {gate['figure']} {gate['value']:.2f}, to reach {gate['to_reach']}: {told}"


def _numbers(_context: click.Context, option: click.Parameter, text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text}: give whole numbers with commas", param=option) from None
    if min(numbers) < 1:
        raise click.BadParameter(f"{text}: give numbers of at least 1", param=option)
    return numbers


def _names(known: Sequence[str]) -> Any:
    def split(_context: click.Context, option: click.Parameter, text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(known)}", param=option)
        return text.split(",")

    return split


@click.command(help=__doc__)
@click.option("--models", default=",".join(SMALL), show_default=True, callback=_names([*MODELS]), help="With commas.")
@click.option("--parts", default="Attention,U-Net", show_default=True, callback=_names(PARTS), help="With commas.")
@click.option("--tokens", default="4,16", show_default=True, callback=_numbers, help="Numbers of vectors.")
@click.option("--prompt-tokens", default="16,64,150", show_default=True, callback=_numbers, help="Of the prompts.")
@click.option("--latents", default="8,16,32", show_default=True, callback=_numbers, help="Cells along one side.")
@click.option("--efforts", default="Balanced", show_default=True, callback=_names([*EFFORTS]), help="With commas.")
@click.option("--steps", default=12, show_default=True, type=click.IntRange(2), help="Learning steps.")
@click.option("--sampling-steps", default=4, show_default=True, type=click.IntRange(1),
              help="Of the sampler, with which the passes to prepare grow.")  # fmt: skip
@click.option("--measure", default=NOTHING, show_default=True, help="What is measured, as the setting calls it.")
@click.option("--device", help="CUDA means fp16.  [default: CUDA where it is there]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last; the table goes to stderr.")
def main(
    models: list[str],
    parts: list[str],
    tokens: list[int],
    prompt_tokens: list[int],
    latents: list[int],
    efforts: list[str],
    steps: int,
    sampling_steps: int,
    measure: str,
    device: str | None,
    as_json: bool,
) -> None:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    extent = Extent(steps, sampling_steps, measure)
    rows: list[Row] = []
    click.echo(HEAD, err=as_json)
    for case in cases(models, parts, tokens, prompt_tokens, latents, efforts):
        rows.append(row := apart(cost, case, extent, device))
        for line in _lines(row):
            click.echo(line, err=as_json)
    summary = summarise(rows)
    for gate in summary["gates"]:
        click.echo(_gate_line(gate), err=as_json)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows], "summary": summary}))


if __name__ == "__main__":
    main()
