"""Every parameter of an estimate, declared once.

The command line, the tab and the API are built from `PARAMETERS`, and bounds are checked here and nowhere else.
Nothing heavy is imported, so that `--help` stays quick.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedding_estimate import optimizers
from embedding_estimate.errors import FEW, SettingsError, nearest, quoted
from embedding_estimate.files import names
from embedding_estimate.settings.choices import ALONE, AMONG_WORDS, ONE_WORD, USES, WORDS
from embedding_estimate.settings.contradictions import contradictions
from embedding_estimate.settings.parameters import Parameter, finite, lines, setting, spelled

PARTS = ("Attention", "Attention + U-Net", "U-Net", "Transformer")
PROMPT_TYPES = ("Prompt", "Negative Prompt")
TOKEN_SOURCES = ("Number", "Initial prompt")
MEASURES = ("Figures and images", "Figures and one image", "Figures", "Nothing")
FORMATS = ("safetensors", "pt")
SEED_LIMIT = 2_000_000_000  # larger ones are `teacher.SELECT_SEED`'s and `REPORT_SEED`'s
LONGEST_PROMPT = 100_000  # characters
LONGEST_NAME = 100  # characters of a sampler's or a schedule's
MOST_LINES = 200


@dataclass(frozen=True)
class Settings:
    """The settings of one estimate. `check` says everything that is wrong with them at once."""

    text: str = setting(
        "", "Text", "The prompt to turn into an embedding, in the WebUI's syntax.", longest=LONGEST_PROMPT
    )
    prompt_type: str = setting("Prompt", "Prompt type", "Where the embedding will be typed.", choices=PROMPT_TYPES)
    use: str = setting(
        AMONG_WORDS,
        "Use",
        "How the embedding will be typed: among other words, where it is trained in contexts of many kinds, or alone, "
        "as the whole prompt, in which it carries more of the weights.",
        choices=USES,
    )
    other_prompt: str = setting(
        "",
        "Other side's text",
        "The negative prompt beside the text. For a negative embedding: the positive prompts, one per line; "
        "several keep it from fitting one picture only.",
        longest=LONGEST_PROMPT,
        lines=MOST_LINES,
    )
    part: str = setting(
        "Attention",
        "Training part",
        "What is matched: what the U-Net reads of the prompt (quick, carries the weights), its prediction "
        "(slow, carries the weights, takes AND), both in turn, or only the text encoder's hidden states "
        "(quickest; in SD1 and SD2 it cannot carry weights).",
        choices=PARTS,
    )
    tokens: int = setting(
        0,
        "Tokens",
        "Vectors in the embedding: the places it takes in a prompt; 0: as many as the text has tokens, with which the "
        "words behind it stand where they would behind the text.",
        minimum=0,
        maximum=75,
    )
    token_source: str = setting(
        "Number",
        "Token count from",
        "The number above, or as many as the initial prompt has.",
        choices=TOKEN_SOURCES,
    )
    initial_prompt: str = setting(
        "",
        "Initial prompt",
        "Whose token vectors to start from, names of embeddings among them; empty: the text's own. "
        "Too many are cut, missing ones are zeros.",
        longest=LONGEST_PROMPT,
    )
    typed_weight: float = setting(
        1.0,
        "Typed weight",
        "The weight that the name will be typed with, as in (name:1.2), which reaches what no vectors can; "
        "1: the bare name, 0: the best one is found.",
        minimum=0.0,
        maximum=2.0,
    )
    words: str = setting(
        ONE_WORD,
        "Words",
        "One word for the prompt, or one for each stretch of it that has a weight of its own, typed as in "
        "(name-a:1.4) name-b: more to type, and closer; or as few as reach the emphasis goal.",
        choices=WORDS,
    )
    emphasis_goal: float = setting(
        0.9,
        "Emphasis goal",
        "For words as few as needed: how much of what the weights add to the bare words is to be explained, in the "
        "contexts that vectors are chosen by.",
        minimum=0.0,
        maximum=1.0,
    )
    templates: str = setting(
        "",
        "Training contexts",
        "Prompts around the embedding that it is trained in, one per line, {} where it stands; empty: contexts of many "
        "kinds and the embedding by itself, or, for use alone, only that. LBFGS takes all at each step, the others "
        "some.",
        longest=LONGEST_PROMPT,
        lines=MOST_LINES,
    )
    learning_steps: int = setting(
        0,
        "Learning steps",
        f"Updates of the vectors; 0: {optimizers.FEW_STEPS} for Attention with LBFGS ({optimizers.CHEAP_STEPS} for use "
        f"alone), "
        f"{optimizers.OPTIMIZERS['Adam'].steps} with Adam, otherwise {optimizers.OptimizerRow.steps}.",
        unit="steps",
        minimum=0,
        maximum=100_000,
    )
    rate: float = setting(
        0.0,
        "Learning rate",
        "In units of the spread of the model's own token vectors; 0: the optimizer's automatic rate.",
        unit="spreads",
        minimum=0.0,
        maximum=1000.0,
    )
    optimizer: str = setting(
        optimizers.AUTOMATIC,
        "Optimizer",
        "Automatic: LBFGS for Attention, Adam for the others. LBFGS keeps the states that it draws first.",
        choices=(optimizers.AUTOMATIC, *optimizers.OPTIMIZERS),
    )
    loss: str = setting("MSE", "Loss", "How two predictions are compared.", choices=tuple(optimizers.LOSSES))
    scheduler: str = setting(
        "constant",
        "Rate scheduler",
        "How the rate changes over the learning steps.",
        choices=tuple(optimizers.SCHEDULERS),
    )
    batch: int = setting(4, "States per step", "Noised latents compared at each learning step.", minimum=1, maximum=256)
    attention_memory: int = setting(
        512,
        "Attention memory",
        "For the rows of cross-attentions that the Attention part keeps; less keeps fewer rows.",
        unit="MB",
        minimum=1,
        maximum=65536,
    )
    checkpointing: bool = setting(
        False,
        "Save memory",
        "Less memory, more time: gradient checkpointing in the U-Net, and one template at a time.",
    )
    early_stop: int = setting(
        0,
        "Early stop",
        "Stop when so many checks on held-out states in a row bring nothing; 0: never.",
        unit="checks",
        minimum=0,
        maximum=1000,
    )
    sampler: str = setting(
        "Euler",
        "Sampler",
        "Draws the latents that the vectors are trained on; the Attention part takes Euler.",
        longest=LONGEST_NAME,
    )
    schedule: str = setting("Karras", "Sigma schedule", "The noise levels of those latents.", longest=LONGEST_NAME)
    steps: int = setting(
        10, "Sampling steps", "Steps of the sampler for each of those latents.", minimum=1, maximum=150
    )
    guidance_scale: float = setting(7.0, "CFG scale", "Guidance of the sampler.", minimum=1.0, maximum=30.0)
    width: int = setting(0, "Width", "Of the picture; 0: the model's own.", unit="pixels", minimum=0, maximum=2048)
    height: int = setting(0, "Height", "Of the picture; 0: the model's own.", unit="pixels", minimum=0, maximum=2048)
    seed: int = setting(0, "Seed", "Of everything that is drawn.", minimum=0, maximum=SEED_LIMIT)
    name: str = setting("", "Name", "The word to type in prompts.")
    overwrite: bool = setting(False, "Overwrite", "Replace an embedding of that name.")
    format: str = setting(
        "safetensors", "File format", "pt only for programs that cannot read safetensors.", choices=FORMATS
    )
    save_every: int = setting(
        0,
        "Save every n steps",
        "Also keep the vectors as they were at every n-th step; 0: only the result.",
        unit="steps",
        minimum=0,
        maximum=100_000,
    )
    preview_every: int = setting(
        0,
        "Preview every n steps",
        "Pictures on the way, of one seed: the prompt's, the embedding's and the empty prompt's; 0: none.",
        unit="steps",
        minimum=0,
        maximum=100_000,
    )
    measure: str = setting(
        "Figures and images",
        "Measure",
        "What is measured once the embedding is saved. The images of 16 seeds, 70 in all, are most of the work; "
        "the 7 of one seed are little of it.",
        choices=MEASURES,
    )
    private: bool = setting(
        False, "Keep the prompt out of the file", "The file's notes then hold neither text nor prompts."
    )

    @property
    def optimizer_used(self) -> str:
        """The optimizer's name, `optimizers.AUTOMATIC` resolved for this part."""
        if self.optimizer != optimizers.AUTOMATIC:
            return self.optimizer
        return optimizers.BY_PART.get(self.part, "Adam")

    @property
    def negative(self) -> bool:
        """Whether the embedding is for the negative prompt."""
        return self.prompt_type == "Negative Prompt"

    @property
    def other_prompts(self) -> tuple[str, ...]:
        """The other side's texts, at least one, perhaps the empty one."""
        return lines(self.other_prompt) or ("",)

    @property
    def template_list(self) -> tuple[str, ...]:
        """The user's, or for use alone the bare one; none where the model's contexts are taken."""
        return lines(self.templates) or (("{}",) if self.use == ALONE else ())

    def problems(self) -> list[str]:
        """One line for each thing that is wrong; empty when all is well. The model is not asked."""
        wrong = {p.name: line for p in PARAMETERS if (line := p.problem(getattr(self, p.name)))}

        def sound(*fields: str) -> bool:
            """Whether their values make sense by themselves, without which there is nothing to contradict."""
            return wrong.keys().isdisjoint(fields)

        named = names.problems(self.name) if sound("name") else []
        return [*wrong.values(), *contradictions(self, sound), *named]

    def check(self) -> None:
        """Raises `SettingsError` with every problem found."""
        if problems := self.problems():
            raise SettingsError(problems)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a form, a file or a request; whole numbers are taken for floats, choices in any case.

        Raises `SettingsError` for names that are no settings, and for texts too long to be read. All else is judged by
        `check`.
        """
        known = {p.name: p for p in PARAMETERS}
        if unknown := [name for name in values if name not in known]:
            raise SettingsError(_unknown(unknown, known))
        if excess := [line for name, value in values.items() if (line := known[name].excess(value))]:
            raise SettingsError(excess)
        widened: dict[str, Any] = {
            name: float(value) if known[name].kind is float and type(value) is int and finite(value) else value
            for name, value in values.items()
        }
        return cls(**{name: spelled(value, known[name].choices) for name, value in widened.items()})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _unknown(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """A line for each of the first names that are no settings, and one for all others."""
    lines = [f"{quoted(name)} is no setting: {nearest(name, known)}" for name in names[:FEW]]
    rest = len(names) - len(lines)
    return [*lines, f"{rest:,} more names are no settings: leave them out"] if rest else lines


def _parameters() -> tuple[Parameter, ...]:
    kinds = typing.get_type_hints(Settings)
    return tuple(
        Parameter(name=f.name, kind=kinds[f.name], default=f.default, **f.metadata)
        for f in dataclasses.fields(Settings)
    )


PARAMETERS = _parameters()
PROMPT = next(parameter for parameter in PARAMETERS if parameter.name == "text")
