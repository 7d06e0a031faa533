SECOND_ORDER = {"scheduler": "karras", "second_order": True, "brownian_noise": True}

samplers_k_diffusion = [
    ("Euler", "sample_euler", ["k_euler"], {}),
    ("DPM++ SDE", "sample_dpmpp_sde", ["k_dpmpp_sde"], SECOND_ORDER),
    ("DPM fast", "sample_dpm_fast", ["k_dpm_fast"], {}),
]
