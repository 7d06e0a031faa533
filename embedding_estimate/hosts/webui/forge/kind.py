"""Forge and Forge Neo: engines of their own, a model that is loaded on demand, and three databases of embeddings."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.errors.out_of_memory import ran_out
from embedding_estimate.hosts.webui import support
from embedding_estimate.hosts.webui.engine import Engine
from embedding_estimate.hosts.webui.forge import families
from embedding_estimate.hosts.webui.forge.engines import clip_engines, reading_settings
from embedding_estimate.hosts.webui.forge.pipeline import ForgePipeline
from embedding_estimate.hosts.webui.kind import Autocast, Pipeline
from embedding_estimate.hosts.webui.replacing import replaced
from embedding_estimate.model.host import Family, Prediction

NONE_CHOSEN = "no checkpoint is chosen: choose one at the top of the page"
NOT_YET = "no checkpoint is loaded yet: the WebUI loads it for the first image or job"
LONGEST = 300  # characters of what the WebUI says, which is a line for each weight of another shape
EMBEDDINGS_ROUTE = "/sdapi/v1/embeddings"


class Forge:
    """`kind.Kind`."""

    def at_hand(self) -> Any:
        """`kind.Kind.at_hand`."""
        from modules import sd_models

        model = sd_models.model_data.sd_model
        if not hasattr(model, "forge_objects"):  # a placeholder, or None
            raise ModelError(NOT_YET)
        families.refuse_loaded(model)
        return model

    def chosen(self) -> Any:
        """`kind.Kind.chosen`. The page's choice is loaded by the next image or job and by nothing before.

        The same holds for its settings of the memory.
        """
        from modules import sd_models
        from modules_forge import main_entry

        if not sd_models.model_data.forge_loading_parameters:  # no page was built
            main_entry.refresh_model_loading_parameters()
        parameters = sd_models.model_data.forge_loading_parameters
        described = parameters["checkpoint_info"]
        if described is None:
            raise ModelError(NONE_CHOSEN)
        families.refuse_file(described, parameters.get("unet_storage_dtype"))
        families.refuse_beside(_chosen_beside())
        model = _loaded(", ".join([described.name_for_extra, *(Path(file).name for file in _chosen_beside())]))
        families.refuse_loaded(model)
        support.refuse_settings()  # one of them is asked by the loaded model's name
        model.forge_objects = model.forge_objects_original.shallow_copy()  # as before each image
        return model

    def checkpoint(self, model: Any) -> tuple[str, str]:
        """`kind.Kind.checkpoint`."""
        name, shorthash = support.checkpoint(model)
        beside = "".join(f"+{encoder}" for encoder in families.text_encoders(_chosen_beside()))
        return name + beside, shorthash and shorthash + beside

    def pipeline(self, model: Any) -> Pipeline:
        """`kind.Kind.pipeline`."""
        return ForgePipeline(model)

    def engines(self, model: Any, autocast: Autocast) -> list[Engine]:
        """`kind.Kind.engines`. They compute in fp32, whatever their weights are stored in."""
        return [
            Engine(
                engine.embedding_key,
                engine,
                autocast,
                embedding=engine.text_encoder.transformer.text_model.embeddings.token_embedding,
                holder=engine.embeddings,
                names=engine.embeddings,
                exact=None,
            )
            for engine in clip_engines(model)
        ]

    def prediction(self, model: Any) -> Prediction:
        """`kind.Kind.prediction`."""
        v = model.forge_objects.unet.model.predictor.prediction_type == "v_prediction"
        return "v" if v else "epsilon"

    def clip_skip(self, model: Any, family: Family) -> int:
        """`kind.Kind.clip_skip`: heeded beyond the layer that the family ends at anyway."""
        from modules import shared

        chosen = int(shared.opts.CLIP_stop_at_last_layers)
        least = min((int(engine.minimal_clip_skip) for engine in clip_engines(model)), default=1)
        return chosen if family == "sd1" or chosen > least else 1

    @contextmanager
    def mode(self, model: Any, emphasis: str) -> Iterator[None]:
        """`kind.Kind.mode`."""
        with support.mode(emphasis), reading_settings(model):
            yield

    @contextmanager
    def infotext_kept(self) -> Iterator[None]:
        """`kind.Kind.infotext_kept`: Forge has it in the module of its engines, Neo among its arguments."""
        import backend.args

        name, holder = "last_extra_generation_params", backend.args.dynamic_args
        if not hasattr(holder, name):
            holder = importlib.import_module("backend.text_processing.classic_engine")  # which Neo may do without
        with replaced(holder, name, {}):
            yield

    def embeddings(self, model: Any) -> Any:
        """`kind.Kind.embeddings`: each engine has all of them."""
        return next((engine.embeddings for engine in clip_engines(model)), None)

    def read_embeddings_anew(self, app: Any) -> None:
        """`kind.Kind.read_embeddings_anew`: the engines' for prompts, the cards' and the API's."""
        from modules import sd_models, ui_extra_networks_textual_inversion

        for engine in clip_engines(sd_models.model_data.sd_model):
            engine.embeddings.load_textual_inversion_embeddings()
        of_api = [route.endpoint.__self__.embedding_db for route in _routes(app) if route.path == EMBEDDINGS_ROUTE]
        for database in (ui_extra_networks_textual_inversion.embedding_db, *of_api):
            database.load_textual_inversion_embeddings(force_reload=True, sync_with_sd_model=False)

    def token_count(self, text: str) -> int:
        """`kind.Kind.token_count`."""
        engine = clip_engines(self.at_hand())[0]
        return int(engine.tokenize_line(text)[1])

    def say(self, p: Any, line: str) -> None:
        """`kind.Kind.say`."""
        p.comment(line)


def _chosen_beside() -> Sequence[str]:
    """Paths of the VAE and text encoders that are chosen beside the checkpoint."""
    from modules import sd_models

    return sd_models.model_data.forge_loading_parameters.get("additional_modules") or ()


def _loaded(chosen: str) -> Any:
    """The model of the page's choice. Raises `ModelError`, with the names of what is chosen, if it cannot be loaded."""
    from modules import processing

    _forget_a_failure()  # of an image
    image = SimpleNamespace(sd_model=None, clear_prompt_cache=lambda: None)  # a turn's end clears it anyway
    try:
        processing.manage_model_and_prompt_cache(image)
    except (AssertionError, ValueError, RuntimeError) as error:  # weights are missing, unknown, or of another shape
        if ran_out(error):
            raise
        said = textwrap.shorten(str(error), LONGEST, placeholder=" ...")
        raise ModelError(f"{chosen}: the WebUI cannot load it ({said})") from error
    finally:
        _forget_a_failure()
    return image.sd_model


def _forget_a_failure() -> None:
    """Where a checkpoint could not be loaded, Forge takes the one before it for loaded, and has none."""
    from modules import sd_models

    if sd_models.model_data.sd_model is None:
        sd_models.model_data.forge_hash = ""


def _routes(app: Any) -> list[Any]:
    return [] if app is None else [route for route in app.routes if hasattr(route, "endpoint")]
