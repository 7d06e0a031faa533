from types import SimpleNamespace
from typing import Any, NamedTuple

from embedding_estimate.hosts.standalone import grammar


class ScheduledPromptConditioning(NamedTuple):
    end_at_step: int
    cond: Any


class SdConditioning(list[str]):
    def __init__(
        self, prompts: list[str], is_negative_prompt: bool = False, width: int | None = None, height: int | None = None
    ):
        super().__init__(prompts)
        self.is_negative_prompt, self.width, self.height = is_negative_prompt, width, height


def parse_prompt_attention(text: str) -> list[list[Any]]:
    return [[segment.text, segment.weight] for segment in grammar.emphasise(text)]


def get_learned_conditioning_prompt_schedules(prompts: list[str], steps: int) -> list[list[list[Any]]]:
    return [[[end, text] for end, text in grammar.schedule(prompt, steps)] for prompt in prompts]


def get_multicond_prompt_list(prompts: list[str]) -> tuple[list[list[tuple[int, float]]], list[str], dict[str, int]]:
    """By prompt the place of each part among all texts, and its weight."""
    composed = [grammar.compose(prompt) for prompt in prompts]
    texts = list(dict.fromkeys(text for parts in composed for text, _ in parts))
    places = {text: place for place, text in enumerate(texts)}
    return [[(places[text], weight) for text, weight in parts] for parts in composed], texts, places


def get_learned_conditioning(model: Any, prompts: SdConditioning, steps: int) -> list[Any]:
    return [_schedule(model, prompt, prompts, steps) for prompt in prompts]


def get_multicond_learned_conditioning(model: Any, prompts: SdConditioning, steps: int) -> Any:
    batch = [
        [
            SimpleNamespace(schedules=_schedule(model, text, prompts, steps), weight=weight)
            for text, weight in grammar.compose(prompt)
        ]
        for prompt in prompts
    ]
    return SimpleNamespace(batch=batch)


def _schedule(model: Any, prompt: str, like: SdConditioning, steps: int) -> list[ScheduledPromptConditioning]:
    [schedule] = get_learned_conditioning_prompt_schedules([prompt], steps)
    ends, texts = zip(*schedule, strict=True)
    conds = model.get_learned_conditioning(
        SdConditioning(list(texts), like.is_negative_prompt, like.width, like.height)
    )
    each = [
        {key: value[i] for key, value in conds.items()} if isinstance(conds, dict) else conds[i]
        for i in range(len(ends))
    ]
    return [ScheduledPromptConditioning(*pair) for pair in zip(ends, each, strict=True)]
