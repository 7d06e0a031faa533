"""Forge has kept the name for extensions, and nothing in it. Neo has no such module."""


class StableDiffusionModelHijack:
    def get_prompt_lengths(self, text: str, cond_stage_model: object) -> tuple[int, int]:
        raise AssertionError("nobody asks here: there is a placeholder behind it until a model is loaded")


model_hijack = StableDiffusionModelHijack()
