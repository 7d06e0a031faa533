"""Under --medvram one of the model's parts is on the device at a time."""

from typing import Any

import torch

from modules import devices

module_in_gpu: Any = None
cpu = torch.device("cpu")


def send_everything_to_cpu() -> None:
    """Also the settings page's button, whatever else is going on."""
    global module_in_gpu
    if module_in_gpu is not None:
        module_in_gpu.to(cpu)
    module_in_gpu = None


def setup_for_low_vram(model: Any) -> None:
    def send_me_to_gpu(module: Any, inputs: Any) -> None:
        global module_in_gpu
        if module_in_gpu is not module:
            send_everything_to_cpu()
            module.to(devices.device)
            module_in_gpu = module

    def decode(latents: Any, **options: Any) -> Any:
        send_me_to_gpu(vae, None)
        return decode_before(latents, **options)

    vae = model.first_stage_model
    decode_before, vae.decode = vae.decode, decode
    for part in (model.model, model.cond_stage_model):
        part.register_forward_pre_hook(send_me_to_gpu)
