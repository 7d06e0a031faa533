import torch
from torch import Tensor, nn


class Predictor(nn.Module):
    def __init__(self, alphas_cumprod: Tensor, prediction_type: str):
        super().__init__()
        self.prediction_type = prediction_type
        self.set_sigmas(((1 - alphas_cumprod) / alphas_cumprod).sqrt())

    def set_sigmas(self, sigmas: Tensor) -> None:
        self.register_buffer("sigmas", sigmas)  # (T,), ascending

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log()[:, None] - self.sigmas.log()).abs().argmin(dim=1)

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        if self.prediction_type == "v_prediction":
            return x / (level**2 + 1) - output * level / (level**2 + 1).sqrt()
        return x - level * output


def rescale_zero_terminal_snr_sigmas(sigmas: Tensor) -> Tensor:
    root = (1 / (sigmas**2 + 1)).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas_cumprod = root**2
    alphas_cumprod[-1] = 4.9e-8
    return torch.sqrt((1 - alphas_cumprod) / alphas_cumprod)
