"""A tiny model in the shape that Forge gives to what it has loaded; `put_on_disk` makes it one that can be chosen."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from backend import memory_management
from backend.modules.k_prediction import Predictor
from backend.nn.unet import made_in_place
from backend.text_processing.classic_engine import ClassicTextProcessingEngine, TextEncoder
from huggingface_guess import detection
from modules import sd_models, shared
from modules_forge import main_entry
from safetensors.torch import save_file
from torch import Tensor, nn

from embedding_estimate.hosts.standalone.loading import LoadedModel

FAMILIES = {"sd1": "SD15", "sd2": "SD20", "sdxl": "SDXL"}


class KModel(nn.Module):
    def __init__(self, unet: nn.Module, predictor: Predictor):
        super().__init__()
        self.diffusion_model, self.predictor = unet, predictor
        self.storage_dtype = self.computation_dtype = torch.float32

    def apply_model(
        self, x: Tensor, sigma: Tensor, c_crossattn: Tensor, transformer_options: dict[str, Any], y: Any = None
    ) -> Tensor:
        assert not transformer_options  # the U-Net writes into them
        transformer_options["block_index"] = 0
        added = None if y is None else {"text_embeds": y[:, :-6], "time_ids": y[:, -6:]}
        output = self.diffusion_model(
            self.predictor.calculate_input(sigma, x),
            self.predictor.timestep(sigma),
            encoder_hidden_states=c_crossattn,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return self.predictor.calculate_denoised(sigma, output.float(), x)


class Patcher:
    def __init__(self, model: nn.Module):
        self.model, self.model_options = model, {"transformer_options": {}}

    def memory_required(self, shape: list[int]) -> int:
        return shape[0] * shape[2] * shape[3]


class ForgeObjects(SimpleNamespace):
    def shallow_copy(self) -> ForgeObjects:
        return ForgeObjects(**vars(self))


class Model:
    """Of any family, and no module itself."""

    def __init__(self, loaded: LoadedModel, engine_class: type[ClassicTextProcessingEngine]):
        sdxl = loaded.family == "sdxl"
        encoders, engines = nn.Module(), []
        for key, encoder in loaded.text_encoders.items():
            setattr(encoders, key, TextEncoder(moved(encoder.model)))
            engines.append(engine_class(getattr(encoders, key), encoder.tokenizer, key, sdxl))
        if sdxl:
            self.text_processing_engine_l, self.text_processing_engine_g = engines
        else:
            [self.text_processing_engine] = engines
        self.engines, self.is_sdxl = engines, sdxl
        prediction = "v_prediction" if loaded.prediction == "v" else "epsilon"
        predictor = Predictor(loaded.alphas_cumprod.float().to(shared.device), prediction)
        unet = Patcher(KModel(made_in_place(moved(loaded.unet)), predictor))
        self.vae = Patcher(moved(loaded.vae))
        clip = SimpleNamespace(cond_stage_model=encoders, patcher=Patcher(encoders))
        self.forge_objects = ForgeObjects(unet=unet, clip=clip, vae=self.vae)
        self.forge_objects_original = self.forge_objects.shallow_copy()
        self.forge_objects_after_applying_lora = self.forge_objects.shallow_copy()
        self.model_config = detection.config(FAMILIES[loaded.family], 4)

    def set_clip_skip(self, clip_skip: int) -> None:
        for engine in self.engines:
            engine.clip_skip = clip_skip

    @torch.inference_mode()
    def get_learned_conditioning(self, texts: Any) -> Any:
        memory_management.load_model_gpu(self.forge_objects.clip.patcher)
        encoded = [engine(texts) for engine in self.engines]
        context = torch.cat([z for z, _ in encoded], dim=2)  # (B, L, C)
        if not self.is_sdxl:
            return context
        pooled = encoded[-1][1]
        if texts.is_negative_prompt and not any(texts):
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        size = pooled.new_tensor([[texts.height, texts.width, 0, 0, texts.height, texts.width]])
        return {"crossattn": context, "vector": torch.cat([pooled, size.expand(len(texts), -1)], dim=1)}

    @torch.inference_mode()
    def decode_first_stage(self, latents: Tensor) -> Tensor:
        memory_management.load_model_gpu(self.vae)
        vae = self.vae.model
        images: Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return images


def moved(module: nn.Module) -> nn.Module:
    """A copy on the stand-in's device: within inference mode one through which no gradient goes back."""
    return deepcopy(module).to(shared.device).requires_grad_(True).train()


def put_on_disk(
    loaded: LoadedModel, folder: Path, engine_class: type[ClassicTextProcessingEngine] = ClassicTextProcessingEngine
) -> Any:
    """Writes a checkpoint that tells its family and nothing else; loading it gives the model. Its description."""
    path = folder / f"{loaded.name}.safetensors"
    save_file({f"model.diffusion_model.family.{FAMILIES[loaded.family]}": torch.zeros(4)}, path)
    sd_models.loaders[str(path)] = lambda: Model(loaded, engine_class)
    return SimpleNamespace(filename=str(path), name_for_extra=loaded.name, name=path.name, shorthash=loaded.hash)


def choose(described: Any) -> None:
    """On the page, which loads nothing."""
    main_entry.chosen["checkpoint_info"] = described
    main_entry.refresh_model_loading_parameters()
