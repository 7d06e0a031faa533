from collections.abc import Callable
from typing import Any

from k_diffusion.sampling import sample_euler
from torch import Tensor

SECOND_ORDER = {"scheduler": "karras", "second_order": True, "brownian_noise": True}


def sample_euler_ancestral(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    disable: bool,
    eta: float = 1.0,
    noise_sampler: Any = None,
) -> Tensor:
    """Forge's asks what the model predicts; the rest is not what the tests are about."""
    assert model.inner_model.predictor.prediction_type != "const"
    return sample_euler(model, x, sigmas, extra_args, disable)


def sample_dpmpp_2s_ancestral_RF(model: Any, x: Tensor, sigmas: Tensor, **_: Any) -> Tensor:  # noqa: N802
    """Neo's, for noise levels of 1 at most."""
    return x * float("nan")


samplers_k_diffusion = [
    ("Euler", "sample_euler", ["k_euler"], {}),
    ("Euler a", sample_euler_ancestral, ["k_euler_a"], {}),
    ("DPM++ SDE", "sample_dpmpp_sde", ["k_dpmpp_sde"], SECOND_ORDER),
    ("DPM++ 2s a RF", sample_dpmpp_2s_ancestral_RF, ["sample_dpmpp_2s_ancestral_RF"], {}),
]
