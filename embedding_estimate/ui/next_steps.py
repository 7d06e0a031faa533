"""What to try where a result is poor: settings that help most, the best first."""

from __future__ import annotations

from collections.abc import Mapping

from embedding_estimate.fidelity.verdict import ALONE, AMONG_WORDS, Verdict, verdict
from embedding_estimate.settings import ALONE as USE_ALONE
from embedding_estimate.settings import ONE_WORD, Settings

MOST = 3  # that are named


def next_steps(settings: Settings, figures: Mapping[str, float | None], in_webui: bool) -> list[str]:
    """One line each; none where the result is close, or is not measured. `figures` are those of `Fidelity` by name."""
    alone = settings.use == USE_ALONE
    names = ALONE if alone else AMONG_WORDS
    reached = verdict(figures, names)
    if reached is None or reached.good:
        return []
    weighted = figures[names[0]] is not None
    elsewhere = verdict(figures, ALONE)
    steps = {
        "Type the prompt itself. Even without weights its words come closer.": reached is Verdict.WORSE,
        "Set Training part to Attention. Transformer cannot keep the weights in SD1 and SD2.": (
            weighted and settings.part == "Transformer"
        ),
        "Set Use to Alone if you always type it as the whole prompt. Alone it comes closer.": (
            not alone and elsewhere is not None and elsewhere.good
        ),
        "Set Words to One per weight. Each weight then gets a word of its own, which comes closer.": (
            weighted and settings.words == ONE_WORD
        ),
        "Press From my prompts below Training contexts. It is then trained in prompts like yours.": (
            not alone and not settings.template_list and in_webui
        ),
        "Fill Training contexts with prompts like yours, one per line.": (
            not alone and not settings.template_list and not in_webui
        ),
        "Press How many tokens? to see how close other numbers of vectors come.": not weighted or settings.tokens > 0,
        "Set Typed weight to 0. The best weight for the name is then found.": (
            weighted and settings.typed_weight == 1 and settings.words == ONE_WORD
        ),
        "Set Training part to Attention + U-Net. It is slower and may come closer.": settings.part == "Attention",
    }
    return [line for line, fits in steps.items() if fits][:MOST]
