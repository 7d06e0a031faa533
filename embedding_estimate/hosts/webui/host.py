"""The host inside a WebUI: the model that it has loaded, lent by its own rules.

Whatever the WebUI does between a prompt and a prediction is done here by its own code: parser, schedules, emphasis,
extra networks, precision, k-diffusion. `modules` is the WebUI's package and is imported inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.attention import cross_attentions
from embedding_estimate.hosts.checkpointing import checkpointed
from embedding_estimate.hosts.free_memory import free_memory
from embedding_estimate.hosts.lending import given_back, random_states_kept
from embedding_estimate.hosts.precision import GradientScale
from embedding_estimate.hosts.thaw import ordinary
from embedding_estimate.hosts.webui import networks, support
from embedding_estimate.hosts.webui.engine import Engine, without_weights
from embedding_estimate.hosts.webui.kind import Kind, Pipeline, kind
from embedding_estimate.hosts.webui.reading import readable
from embedding_estimate.hosts.webui.sampling import Samplers, sampler_names, schedule_names
from embedding_estimate.hosts.webui.turns import anybody_waits, job_turn, queued
from embedding_estimate.model.host import Conditioning, CrossAttention, Denoise, Stage, Vectors


class WebuiModel:
    """`host.BorrowedModel` over the WebUI's loaded model."""

    def __init__(self, webui: Kind, model: Any, pipeline: Pipeline, added: Sequence[str]):
        """`webui` is the family of the WebUI, `added` the extra networks that its settings add to every prompt."""
        from modules import devices, prompt_parser, shared

        self._kind = webui
        self._model = model
        self._pipeline = pipeline
        self._autocast = devices.autocast
        self._parser = prompt_parser
        # a setting of later WebUIs, and only these have a place for it
        self._timing = {"use_old_scheduling": True} if getattr(shared.opts, "use_old_scheduling", False) else {}
        self._engines = {engine.key: engine for engine in webui.engines(model, self._autocast)}
        self._first: Engine = next(iter(self._engines.values()))
        self._samplers = Samplers(model, pipeline.inner_model)
        self._sizes: dict[tuple[int, int, bool], Tensor] = {}
        self.device: torch.device = shared.device
        self.samplers = sampler_names()
        self.schedules = schedule_names()
        self.emphasis_modes: Sequence[str] = support.emphasis_modes()
        widths = {key: engine.table.shape[1] for key, engine in self._engines.items()}
        clip_skip = webui.clip_skip(model, support.family(widths))
        chunk_tokens = int(self._first.engine.chunk_length)
        self.info = support.info(
            model, webui.checkpoint(model), webui.prediction(model), clip_skip, widths, chunk_tokens, added
        )

    def mode(self, emphasis: str) -> AbstractContextManager[None]:
        return self._kind.mode(self._model, emphasis)

    @torch.no_grad()
    def encode(
        self,
        prompt: str,
        *,
        evaluations: int,
        width: int,
        height: int,
        negative: bool = False,
        weights: bool = True,
    ) -> list[Stage]:
        texts = self._sized([networks.stripped(prompt)], width, height, negative)
        with readable(prompt), ExitStack() as stack:
            stack.enter_context(self._autocast())
            for engine in self._engines.values() if not weights else ():
                stack.enter_context(without_weights(engine.engine))
            if negative:
                [schedule] = self._parser.get_learned_conditioning(self._model, texts, evaluations, **self._timing)
                parts = [(schedule, 1.0)]
            else:
                composed = self._parser.get_multicond_learned_conditioning(
                    self._model, texts, evaluations, **self._timing
                )
                parts = [(part.schedules, part.weight) for part in composed.batch[0]]
        ends = sorted({int(step.end_at_step) for schedule, _ in parts for step in schedule})
        return [
            Stage(end, tuple((_conditioning(_at(schedule, end)), float(weight)) for schedule, weight in parts))
            for end in ends
        ]

    def encode_vectors(
        self, vectors: Vectors, templates: Sequence[str], *, width: int, height: int, negative: bool = False
    ) -> list[Conditioning]:
        plain = [networks.stripped(template) for template in templates]
        key, first = next(iter(self._engines.items()))  # another reads the same tokens
        made: dict[int, Conditioning] = {}
        for places in first.batches(plain, len(vectors[key])):
            batch = [plain[place] for place in places]
            encoded = [engine.encode(vectors[key], batch) for key, engine in self._engines.items()]
            contexts = torch.split(torch.cat([context for context, _ in encoded], dim=2), 1)  # B of (1, L, C)
            pooled = encoded[-1][1]  # (B, P)
            if pooled is None:
                made |= zip(places, map(Conditioning, contexts), strict=True)
                continue
            sizes = self._size_vector(width, height, negative, pooled.shape[1])
            vector = torch.cat([pooled, sizes.expand(len(batch), -1)], dim=1)  # (B, V)
            made |= zip(places, map(Conditioning, contexts, torch.split(vector, 1)), strict=True)
        return [made[place] for place in range(len(plain))]

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        context, vector = conditioning.context, conditioning.vector
        dtype = self._pipeline.computes_in or next(self._pipeline.unet.parameters()).dtype
        half = dtype == torch.float16 or dtype.itemsize == 1  # weights of a byte are computed with in fp16
        scale = GradientScale() if half and torch.is_grad_enabled() else None
        if scale is not None:
            context, vector = scale.leave(context), None if vector is None else scale.leave(vector)
        context = context.expand(len(x), -1, -1)
        vector = None if vector is None else vector.expand(len(x), -1)
        with self._autocast():
            denoised = self._pipeline.denoise(x, sigma, context, vector).float()
        return denoised if scale is None else scale.enter(denoised)

    def cross_attentions(self) -> Sequence[CrossAttention]:
        pipeline = self._pipeline
        return cross_attentions(pipeline.unet, self._autocast, pipeline.contexts, pipeline.computes_in)

    def free_memory(self) -> int | None:
        return free_memory(self.device)

    def release(self, *, for_good: bool = False) -> bool:
        from modules import devices

        copies = [engine.exact for engine in self._engines.values() if engine.exact is not None]
        released = [copy.release(for_good) for copy in copies]
        devices.torch_gc()
        return any(released)

    def checkpointed(self) -> AbstractContextManager[None]:
        return checkpointed(self._pipeline.unet, self._autocast)

    def evaluations(self, sampler: str, steps: int) -> int:
        return self._samplers.evaluations(sampler, steps)

    def sample(
        self,
        denoise: Denoise,
        *,
        sampler: str,
        schedule: str,
        steps: int,
        seeds: Sequence[int],
        width: int,
        height: int,
    ) -> Tensor:
        scale = self.info.latent_scale
        return self._samplers.sample(
            denoise,
            sampler=sampler,
            schedule=schedule,
            steps=steps,
            seeds=seeds,
            shape=(self.info.latent_channels, height // scale, width // scale),
            device=self.device,
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return (torch.cat(self._pipeline.decode(latents)) / 2 + 0.5).clamp(0, 1)

    def token_ids(self, text: str) -> list[int]:
        return self._first.token_ids(text)

    @torch.no_grad()
    def token_vectors(self, text: str) -> dict[str, Tensor]:
        plain = networks.stripped(text)
        return {key: engine.token_vectors(plain).float() for key, engine in self._engines.items()}

    def token_weights(self, text: str) -> list[float]:
        return self._first.token_weights(networks.stripped(text))

    @torch.no_grad()
    def padding_vectors(self) -> dict[str, Tensor]:
        return {key: engine.padding.float() for key, engine in self._engines.items()}

    def embedding_names(self) -> list[str]:
        return list(self._kind.embeddings(self._model).word_embeddings)

    def notes(self, prompt: str) -> list[str]:
        notes = list(self._pipeline.notes())
        if any(engine.exact is not None and engine.exact.refused for engine in self._engines.values()):
            notes.append("no memory for the text encoder in fp32: trained in the WebUI's half precision")
        if typed := dict.fromkeys(networks.mentioned(prompt)):
            notes.append(f"type {' '.join(typed)} beside it: no vectors can do what it does")
        if self.info.networks:
            notes.append(
                f"made with {' '.join(self.info.networks)}, which the settings add to every prompt: "
                "type it beside the embedding once they do not"
            )
        return notes

    def vocabulary(self) -> dict[str, Tensor]:
        return {key: engine.table.detach() for key, engine in self._engines.items()}

    def _sized(self, texts: list[str], width: int, height: int, negative: bool) -> Any:
        """Texts as the WebUI hands them on; only one that knows SDXL has a place for the size."""
        conditioning = getattr(self._parser, "SdConditioning", None)
        return (
            texts
            if conditioning is None
            else conditioning(texts, is_negative_prompt=negative, width=width, height=height)
        )

    @torch.no_grad()
    def _size_vector(self, width: int, height: int, negative: bool, pooled: int) -> Tensor:
        """What SDXL is told beside the pooled text of that width: the sizes (1, V - pooled), the same for any text."""
        key = width, height, negative
        if key not in self._sizes:
            with self._autocast():
                whole = self._model.get_learned_conditioning(self._sized(["a"], width, height, negative))["vector"]
            self._sizes[key] = ordinary(whole[:, pooled:].float())
        return self._sizes[key]


def _at(schedule: Sequence[Any], end: int) -> Any:
    """What holds at an evaluation."""
    return next((step.cond for step in schedule if end <= step.end_at_step), schedule[0].cond)


def _conditioning(cond: Any) -> Conditioning:
    if isinstance(cond, dict):
        return Conditioning(ordinary(cond["crossattn"][None].float()), ordinary(cond["vector"][None].float()))
    return Conditioning(ordinary(cond[None].float()))


class WebuiHost:
    """`host.Host` for one job."""

    def __init__(self, texts: Sequence[str] = ()):
        """`texts` are the job's prompts, whose extra networks are active while the model is borrowed."""
        self.texts = texts

    @contextmanager
    def borrow(self, check: Callable[[], None] = lambda: None) -> Iterator[WebuiModel]:
        """`host.Host.borrow`; waits in the WebUI's own queue. Raises `ModelError` for an unsupported model."""
        from modules import sd_models, shared

        with job_turn(check):
            webui = kind()
            model = webui.chosen()
            check()  # to load it may have taken a while
            pipeline = webui.pipeline(model)
            with (
                queued(sd_models, "unload_model_weights"),  # which its API calls without a turn
                random_states_kept(shared.device),
                webui.infotext_kept(),
                networks.active(self.texts) as added,
                pipeline.loaded(),
                given_back(pipeline.modules, but=pipeline.books),
                pipeline.set_up(),
            ):
                _frozen(pipeline.modules)
                yield WebuiModel(webui, model, pipeline, added)

    def wanted(self) -> bool:
        """`host.Host.wanted`: in the WebUI's queue."""
        return anybody_waits()

    def show(self, phase: str, done: int, total: int) -> bool:
        """`host.Host.show`: in the WebUI's progress, and from its buttons Interrupt and Skip."""
        from modules import shared

        state = shared.state
        state.textinfo = f"Embedding Estimate: {phase} {done}/{total}"
        state.sampling_step, state.sampling_steps = done, total
        return bool(state.interrupted or state.skipped or getattr(state, "stopping_generation", False))


def _frozen(modules: Sequence[nn.Module]) -> None:
    """In eval mode and without gradients of its own."""
    for module in modules:
        module.requires_grad_(False)
        for part in module.modules():
            part.training = False  # `eval` does not reach all: LDM makes `train` of its frozen parts do nothing
            for name in ("checkpoint", "use_checkpoint"):  # LDM's, which differentiates by the parameters
                if getattr(part, name, None) is True:
                    setattr(part, name, False)
