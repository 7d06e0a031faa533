"""`estimate --dry-run`: what an estimate would do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedding_estimate.cli.figures import print_json
from embedding_estimate.cli.host import HostOptions, load
from embedding_estimate.cli.notes import Notes, note
from embedding_estimate.cli.printing import show
from embedding_estimate.estimation import summary
from embedding_estimate.files import names
from embedding_estimate.optimizers import OPTIMIZERS
from embedding_estimate.settings import FEW_WORDS, Settings
from embedding_estimate.storage import saving

if TYPE_CHECKING:
    from embedding_estimate.estimation.dry_run import DryRun, PhaseWork
    from embedding_estimate.estimation.duration import Duration
    from embedding_estimate.estimation.memory import Memory
    from embedding_estimate.estimation.passes import Range

MEGABYTE = 2**20


def run_dry(
    settings: Settings,
    hosted: HostOptions,
    folder: Path,
    picture: Path | None,
    contexts: Sequence[str],
    as_json: bool,
) -> None:
    """Prints the plan of an estimate. Trains nothing and writes nothing; raises what the estimate would raise before
    its training."""
    from embedding_estimate.checks import advice
    from embedding_estimate.estimation.dry_run import dry_run
    from embedding_estimate.estimation.listener import Listener
    from embedding_estimate.jobs.pipeline import without_hidden_images

    beside = []
    if folder.is_dir():
        saving.check_names(settings, folder)
        beside = [path.stem for path in names.files(folder) if path.suffix.lower() in names.EXTENSIONS]
    if picture is not None:
        note("--report: no effect with --dry-run, which draws nothing")
    notes = Notes()
    notes(advice.of_settings(settings))
    settings = without_hidden_images(settings, picture is not None)
    plan = dry_run(settings, load(hosted), Listener(on_notes=notes), contexts=contexts, beside=beside)
    for line in _lines(plan):
        show(line)
    if as_json:
        print_json(summary.of_plan(plan))


def _lines(plan: DryRun) -> Iterator[str]:
    settings = plan.begun.settings
    yield f"{settings.name}: {_counted(settings.tokens, 'vector')}{_words(plan)}"
    yield "\nphases:"
    if not plan.phases:
        yield f"  none; {plan.begun.exact_note}"
    for number, work in enumerate(plan.phases, 1):
        yield from _phase(number, work)
    yield "\npasses of the U-Net, of one latent each:"
    for label, passes in plan.stages.items():
        yield f"  {label:<10}{_passes(passes)}"
    yield f"\nseconds on this machine: {_seconds(plan.duration)}"
    megabytes = ", ".join(f"{name} {size:,}" for name, size in _megabytes(plan.memory).items() if size)
    total = round(plan.memory.total / MEGABYTE)
    yield f"memory on top of the model: about {total:,} MB" + (f" ({megabytes})" if megabytes else "")
    yield "\nThis was a dry run: nothing was trained or saved."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _words(plan: DryRun) -> str:
    """How the name is typed, where it is not simply the name."""
    settings, task = plan.begun.settings, plan.begun.teacher.task
    if settings.words == FEW_WORDS and plan.begun.plans:
        return f", in {' or '.join(str(len(words)) for words in plan.begun.plans)} words, as few as reach the goal"
    if task.words:
        return f", in {len(task.words)} words with the weights {', '.join(f'{word.weight:g}' for word in task.words)}"
    if settings.typed_weight == 0:
        return ", typed with a weight that is found"
    return f", typed with the weight {task.typed_weight:g}" if task.typed_weight != 1 else ""


def _phase(number: int, work: PhaseWork) -> Iterator[str]:
    phase, trajectory = work.phase, work.phase.trajectory
    facts = [
        f"{phase.optimizer} at {_rate(work)}",
        *([f"{phase.scheduler} rate"] if phase.scheduler != "constant" else []),
        f"loss {phase.loss}",
        _counted(phase.steps, "learning step"),
        _counted(len(work.contexts), "context")
        + "".join(f" ({contexts} of them in the first {steps})" for steps, contexts in work.stages[:-1]),
    ]
    if phase.early_stop:
        facts.append(f"early stop after {_counted(phase.early_stop, 'check')} without progress")
    if phase.finds_weight:
        facts.append("finds the weight of the name, with more steps for its trials")
    if phase.finds_words:
        facts.append("finds the number of words, with more steps for its trials")
    yield f"  {number}. {phase.part}: {', '.join(facts)}"
    if phase.part != "Transformer":
        yield (
            f"     latents from {trajectory.sampler}, {trajectory.schedule}, "
            f"{_counted(trajectory.steps, 'sampling step')}, CFG scale {trajectory.guidance_scale:g}"
        )


def _rate(work: PhaseWork) -> str:
    phase = work.phase
    if phase.rate:
        return f"rate {phase.rate:g}"
    row = OPTIMIZERS[phase.optimizer]
    return f"rate {row.rate:g}" if row.power == 0 else f"an automatic rate of at most {row.rate:g}"


def _seconds(duration: Duration) -> str:
    stages = (f"{name} {_rounded(seconds)}" for name, seconds in vars(duration).items())
    return f"about {_rounded(duration.total)} ({', '.join(stages)})"


def _rounded(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _passes(passes: Range) -> str:
    least, most = passes.least, passes.most
    if not most.forwards:
        return "none"
    through = f"{_between(least.forwards, most.forwards)} forward"
    return f"{through}, {_between(least.backwards, most.backwards)} backward" if most.backwards else through


def _between(least: int, most: int) -> str:
    if least == most:
        return f"{most:,}"
    return f"{least:,} to {most:,}" if least else f"up to {most:,}"


def _megabytes(memory: Memory) -> dict[str, int]:
    sizes = {
        "U-Net": memory.unet,
        "text encoder": memory.text_encoder,
        "rows of cross-attentions": memory.rows,
        "latents": memory.states,
        "vectors and optimizer": memory.vectors,
    }
    return {name: round(size / MEGABYTE) for name, size in sizes.items()}
