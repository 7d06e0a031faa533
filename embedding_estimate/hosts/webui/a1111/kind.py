"""AUTOMATIC1111's WebUI, of all versions since 1.2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui import support
from embedding_estimate.hosts.webui.a1111 import refusals
from embedding_estimate.hosts.webui.a1111.pipeline import LdmPipeline
from embedding_estimate.hosts.webui.engine import Engine
from embedding_estimate.hosts.webui.exact import ExactCopy
from embedding_estimate.hosts.webui.kind import Autocast, Pipeline
from embedding_estimate.hosts.webui.replacing import replaced
from embedding_estimate.model.host import Family, Prediction


class Automatic1111:
    """`kind.Kind`."""

    def at_hand(self) -> Any:
        """`kind.Kind.at_hand`."""
        from modules import sd_models, shared

        data = getattr(sd_models, "model_data", None)  # asking `shared` for the model would load it
        return refusals.of_a_known_kind(data.sd_model if data else shared.sd_model)

    def chosen(self) -> Any:
        """`kind.Kind.chosen`."""
        from modules import shared

        model = refusals.of_a_known_kind(shared.sd_model)
        support.refuse_settings()
        self.refuse_arguments()
        return model

    def refuse_arguments(self) -> None:
        """Raises `ModelError` for arguments of the WebUI's under which no gradient gets back."""
        from modules import shared

        if shared.cmd_opts.lowvram:
            raise ModelError(
                "--lowvram keeps the U-Net in pieces, and no gradient gets back through it: "
                "start the WebUI with --medvram"
            )

    def checkpoint(self, model: Any) -> tuple[str, str]:
        """`kind.Kind.checkpoint`."""
        return support.checkpoint(model)

    def pipeline(self, model: Any) -> Pipeline:
        """`kind.Kind.pipeline`."""
        return LdmPipeline(model)

    def engines(self, model: Any, autocast: Autocast) -> list[Engine]:
        """`kind.Kind.engines`."""
        encoders = refusals.encoders(model)
        if len(encoders) == 1:
            open_clip = "OpenCLIP" in type(encoders[0].wrapped).__name__
            return [_engine("clip_h" if open_clip else "clip_l", encoders[0], autocast)]
        return [_engine(key, encoder, autocast) for key, encoder in zip(("clip_l", "clip_g"), encoders, strict=True)]

    def prediction(self, model: Any) -> Prediction:
        """`kind.Kind.prediction`."""
        return "v" if getattr(model, "parameterization", "eps") == "v" else "epsilon"

    def clip_skip(self, model: Any, family: Family) -> int:
        """`kind.Kind.clip_skip`: heeded in SDXL by a setting of its own, and never in SD2."""
        from modules import shared

        chosen = int(shared.opts.CLIP_stop_at_last_layers)
        heeded = family == "sd1" or (family == "sdxl" and getattr(shared.opts, "sdxl_clip_l_skip", False))
        return chosen if heeded else 1

    @contextmanager
    def mode(self, model: Any, emphasis: str) -> Iterator[None]:
        """`kind.Kind.mode`."""
        with support.mode(emphasis):
            yield

    @contextmanager
    def infotext_kept(self) -> Iterator[None]:
        """`kind.Kind.infotext_kept`.

        Embeddings are read as before each image: new files are known, and reForge knows any.
        """
        from modules.sd_hijack import model_hijack

        model_hijack.embedding_db.load_textual_inversion_embeddings()
        with ExitStack() as stack:
            for name in ("comments", "extra_generation_params"):
                if hasattr(model_hijack, name):
                    stack.enter_context(replaced(model_hijack, name, type(getattr(model_hijack, name))()))
            try:
                yield
            finally:
                model_hijack.fixes = None

    def embeddings(self, model: Any) -> Any:
        """`kind.Kind.embeddings`: those of the whole WebUI."""
        from modules.sd_hijack import model_hijack

        return model_hijack.embedding_db

    def read_embeddings_anew(self, app: Any) -> None:
        """`kind.Kind.read_embeddings_anew`: there is one database for everything."""
        self.embeddings(None).load_textual_inversion_embeddings(force_reload=True)

    def token_count(self, text: str) -> int:
        """`kind.Kind.token_count`."""
        from modules.sd_hijack import model_hijack

        count = model_hijack.get_prompt_lengths(text)[0]
        if not isinstance(count, int):
            raise ModelError(refusals.NONE_LOADED)
        return count

    def say(self, p: Any, line: str) -> None:
        """`kind.Kind.say`."""
        from modules.sd_hijack import model_hijack

        if hasattr(p, "comment"):
            p.comment(line)
        else:  # before 1.6
            model_hijack.comments.append(line)


def _engine(key: str, encoder: Any, autocast: Autocast) -> Engine:
    embedding = next(part for part in encoder.modules() if type(part).__name__ == "EmbeddingsWithFixes")
    hijack = encoder.hijack
    return Engine(
        key, encoder, autocast, embedding=embedding, holder=hijack, names=hijack.embedding_db, exact=ExactCopy(encoder)
    )
