"""`estimate` for Python: from a prompt and a pipeline, or the path of a model, to an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from embedding_estimate.checks import advice
from embedding_estimate.errors import SettingsError, quoted
from embedding_estimate.estimation import trainer
from embedding_estimate.estimation.dry_run import within_seconds
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.fidelity.previews import Preview, Previews
from embedding_estimate.files.free_name import free_name
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.jobs.progress_bars import ProgressBars
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.python_api.callbacks import Callbacks
from embedding_estimate.python_api.interrupting import stopping_on_interrupt
from embedding_estimate.python_api.result import Result
from embedding_estimate.reports import report
from embedding_estimate.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedding_estimate.fidelity.protocol import Images
    from embedding_estimate.files.embedding import Embedding
    from embedding_estimate.model.host import BorrowedModel


def estimate(
    text: str | Settings,
    model: Any,
    *,
    contexts: Sequence[str] = (),
    emphasis: str = "Original",
    clip_skip: int = 1,
    progress: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_snapshot: Callable[[Embedding, int], None] | None = None,
    on_preview: Callable[[Preview], None] | None = None,
    stop: StopToken | None = None,
    **settings: Any,
) -> Result:
    """Makes an embedding that does what a prompt does.

    A pipeline comes back as it was, also after an error. Its scheduler, guidance and prompts do not matter: the
    settings `sampler`, `schedule`, `steps` and `guidance_scale` do. Ctrl+C stops, and what was reached is returned.

    Args:
        text: the prompt in the WebUI's syntax, as in "(red:1.5) circle", or all settings in one.
        model: a loaded StableDiffusionPipeline or StableDiffusionXLPipeline, or what to load: a folder in diffusers
            layout, a .safetensors checkpoint or a hub name.
        contexts: prompts to measure in, each with `{}` where the embedding stands; without any, the model's own.
        emphasis: how weights are applied, as in the WebUI: "Original", "No norm", "Ignore" or "None".
        clip_skip: the layer that SD1's text encoder ends with, counted from the last one, which is 1.
        progress: whether to show progress bars.
        on_progress: is called with each `Progress`.
        on_snapshot: is called with the best embedding so far and its step at every `save_every`-th learning step.
        on_preview: is called with a `Preview` at every `preview_every`-th learning step.
        stop: stops the job from another thread.
        **settings: fields of `Settings`, as in `tokens=4`; they override those of `text`. Without a `name` the
            embedding gets one from the prompt's words, and `Result.save` takes another.

    Returns:
        The embedding with its figures, see `Result`. Where it was stopped, `Result.stopped` is "interrupted".

    Raises:
        SettingsError: a setting is unknown, out of range or contradicts another; one line for each problem.
        PromptError: the training part cannot match this prompt.
        ModelError: the model cannot be loaded, or the pipeline cannot be used.
        Interrupted: `stop` was set before there was anything to keep, or with `save=False`.
        KeyboardInterrupt: Ctrl+C was pressed before there was anything to keep, or twice.
        Exception: whatever a callback raises.

    Example:
        >>> from diffusers import StableDiffusionPipeline
        >>> from embedding_estimate import estimate
        >>> pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5").to("cuda")
        >>> estimate("(red:1.5) circle", pipe, tokens=4).save("red-disc")
        [PosixPath('embeddings/red-disc.safetensors')]
    """
    chosen = _settings(text, settings)
    _check_callbacks(chosen, on_snapshot, on_preview)
    _check_contexts(contexts)
    stop = stop or StopToken()
    host = _host(model, emphasis, clip_skip)
    pictures: dict[str, list[Image]] = {}
    notes = advice.of_settings(chosen)
    callbacks = Callbacks(stop)

    def decode(borrowed: BorrowedModel, images: Images) -> None:
        pictures.update(report.pictures(borrowed, images))

    with ExitStack() as stack:
        bars = [stack.enter_context(ProgressBars())] if progress else []
        stack.enter_context(stopping_on_interrupt(stop))
        stack.enter_context(callbacks)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        told = callbacks.guarded(*bars, on_progress)
        chosen = within_seconds(
            chosen, host, Listener(on_progress=told, on_notes=notes.extend), contexts=contexts, stop=stop
        )
        done = trainer.estimate(
            chosen,
            host,
            Listener(
                on_progress=told,
                on_snapshot=callbacks.guarded(on_snapshot),
                on_preview=Previews(callbacks.guarded(on_preview), on_failure=notes.append).make,
                on_images=decode,
            ),
            contexts=contexts,
            stop=stop,
        )
    return Result(chosen, done, pictures, notes)


def _check_contexts(contexts: object) -> None:
    """A single text would be taken letter by letter."""
    if isinstance(contexts, str):
        raise SettingsError([f"contexts={quoted(contexts)} is one text: give a list of prompts"])


def _settings(text: str | Settings, options: dict[str, Any]) -> Settings:
    """All settings, checked, with a name. Raises SettingsError with every problem."""
    values = {**text.to_dict(), **options} if isinstance(text, Settings) else {"text": text, **options}
    chosen = Settings.from_mapping(values)
    if not values.get("name"):
        prompt = "" if chosen.private else str(chosen.text)[:1000]  # its first words are enough
        chosen = Settings.from_mapping({**values, "name": free_name(prompt, [])})
    chosen.check()
    return chosen


def _check_callbacks(settings: Settings, on_snapshot: object, on_preview: object) -> None:
    """Raises SettingsError for a setting that would do nothing."""
    pairs = (("save_every", "on_snapshot", on_snapshot), ("preview_every", "on_preview", on_preview))
    if idle := [
        f"{name}={getattr(settings, name)}: nothing takes what it makes; give {callback}, or leave it out"
        for name, callback, listener in pairs
        if getattr(settings, name) and listener is None
    ]:
        raise SettingsError(idle)


def _host(model: Any, emphasis: str, clip_skip: int) -> StandaloneHost:
    if isinstance(model, str | Path):
        return StandaloneHost.load(model, emphasis=emphasis, clip_skip=clip_skip)
    return StandaloneHost.of_pipeline(model, emphasis=emphasis, clip_skip=clip_skip)
