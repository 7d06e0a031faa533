"""reForge, and Forge Classic: AUTOMATIC1111's text engines over a model that is kept as in Forge's first versions."""

from __future__ import annotations

from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.a1111 import refusals
from embedding_estimate.hosts.webui.a1111.kind import Automatic1111
from embedding_estimate.hosts.webui.kind import Pipeline
from embedding_estimate.hosts.webui.reforge.pipeline import ReforgePipeline
from embedding_estimate.model.host import Family


class Reforge(Automatic1111):
    """`kind.Kind`."""

    def refuse_arguments(self) -> None:
        """None are: memory is managed in another way, whatever --lowvram says."""

    def pipeline(self, model: Any) -> Pipeline:
        """`kind.Kind.pipeline`."""
        return ReforgePipeline(model)

    def clip_skip(self, model: Any, family: Family) -> int:
        """`kind.Kind.clip_skip`: heeded beyond the layer that the family ends at anyway."""
        from modules import shared

        chosen = int(shared.opts.CLIP_stop_at_last_layers)
        least = [int(getattr(encoder, "minimal_clip_skip", 1)) for encoder in refusals.encoders(model)]
        return chosen if family == "sd1" or chosen > min(least) else 1

    def token_count(self, text: str) -> int:
        """`kind.Kind.token_count`: the engine has to be named."""
        from modules import sd_models
        from modules.sd_hijack import model_hijack

        engine = getattr(sd_models.model_data.sd_model, "cond_stage_model", None)
        if not engine:
            raise ModelError(refusals.NONE_LOADED)
        return int(model_hijack.get_prompt_lengths(text, engine)[0])
