"""What a WebUI is asked for an image, and the conditionings that it keeps from one to the next."""

from typing import Any, ClassVar


class StableDiffusionProcessing:
    cached_uc: ClassVar[list[Any]] = [None, None]
    cached_c: ClassVar[list[Any]] = [None, None]

    def __init__(self) -> None:
        self.cached_uc, self.cached_c = StableDiffusionProcessing.cached_uc, StableDiffusionProcessing.cached_c

    def cached_params(self, prompts: list[str]) -> tuple[str, ...]:
        return tuple(prompts)


class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    cached_hr_uc: ClassVar[list[Any]] = [None, None]
    cached_hr_c: ClassVar[list[Any]] = [None, None]


class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    pass
