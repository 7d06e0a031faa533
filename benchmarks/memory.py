"""What each training part, and generating one image, needs of memory on top of the model: real shapes, random weights.

Each is measured in a process of its own: the largest resident set since the model was there, less the resident set
then; on CUDA what torch had allocated. The parts run as by default, with fewer steps, each of which needs as much as
any other. The image is one sampled with guidance, both sides in one batch as a WebUI does it, without the VAE.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import click
import torch

from benchmarks.random_models import SHAPES
from benchmarks.reference import guided
from benchmarks.step_cost import TEXT, TOKENS
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.settings import PARTS, Settings
from embedding_estimate.teaching.batches import USUAL
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

IMAGE = "image"
TRAJECTORY = Trajectory("Euler", "Karras", 2, 7.0)  # more steps take no more memory
LEARNING_STEPS = 12  # one check on held-out states among them
MIB = 2**20
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """What one job needs."""

    shape: str
    latent: str
    dtype: str  # of the U-Net
    device: str
    job: str
    batch: int | None  # states at once; None for the image
    model_mib: float
    peak_mib: float  # on top of the model


def measure(shape: str, job: str, latent: int, batch: int, device: str) -> Row:
    """One job in this process, whose memory is all counted."""
    loaded = SHAPES[shape](device)
    size = latent * 8
    host = StandaloneHost.of(loaded)
    gc.collect()
    before = in_use(loaded.device)
    forget_peak(loaded.device)
    if job == IMAGE:
        with host.borrow() as model:
            generate_image(model, size)
    else:
        estimate(_settings(job, size, batch), host)
    return Row(
        shape=shape,
        latent=f"{latent}x{latent}",
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=loaded.device.type,
        job=job,
        batch=None if job == IMAGE else batch,
        model_mib=before / MIB,
        peak_mib=(peak(loaded.device) - before) / MIB,
    )


def _settings(part: str, size: int, batch: int) -> Settings:
    return Settings(
        text=TEXT,
        part=part,
        tokens=TOKENS,
        batch=batch,
        learning_steps=LEARNING_STEPS,
        sampler=TRAJECTORY.sampler,
        steps=TRAJECTORY.steps,
        width=size,
        height=size,
        name="measured",
        measure="Nothing",
    )


def generate_image(model: BorrowedModel, size: int) -> None:
    teacher = Teacher(model, Task(TEXT, False, ("",), size, size))
    cond, uncond = teacher.replaced(TEXT, TRAJECTORY), teacher.side("", TRAJECTORY, negative=True)
    with torch.no_grad():
        model.sample(
            guided(cond, uncond, TRAJECTORY.guidance_scale),
            sampler=TRAJECTORY.sampler,
            schedule=TRAJECTORY.schedule,
            steps=TRAJECTORY.steps,
            seeds=[0],
            width=size,
            height=size,
        )


def in_use(device: torch.device) -> int:
    """Bytes in use."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


def peak(device: torch.device) -> int:
    """Bytes in use at most since `forget_peak`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark begins anew


def _status(key: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def apart(run: Callable[..., T], *arguments: object) -> T:
    """In a fresh process, so that nothing is left of what ran before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run, arguments)


def _line(row: Row) -> str:
    at_once = "" if row.batch is None else f", {row.batch} states at once"
    return (
        f"{row.shape}, {row.dtype} on {row.device}, latent {row.latent}: {row.job}{at_once}: "
        f"{row.peak_mib:.0f} MiB on top of the model's {row.model_mib:.0f}"
    )


@click.command(help=__doc__)
@click.option("--shape", type=click.Choice([*SHAPES]), default="sd15", show_default=True)
@click.option("--latent", default=16, show_default=True, type=click.IntRange(8, 128), help="Cells along one side.")
@click.option("--jobs", default=",".join([IMAGE, *PARTS]), show_default=True, help="With commas.")
@click.option("--batch", default=USUAL, show_default=True, type=click.IntRange(1), help="States at once.")
@click.option("--device", help="CUDA means fp16.  [default: CUDA where it is there]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last; the table goes to stderr.")
def main(shape: str, latent: int, jobs: str, batch: int, device: str | None, as_json: bool) -> None:
    if unknown := set(jobs.split(",")) - {IMAGE, *PARTS}:
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join((IMAGE, *PARTS))}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for job in jobs.split(","):
        rows.append(row := apart(measure, shape, job, latent, batch, device))
        click.echo(_line(row), err=as_json)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
