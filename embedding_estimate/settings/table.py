"""Every parameter of an estimate, declared once.

The command line, the tab and the API are built from `PARAMETERS`. Bounds and texts stand here and nowhere else.
Nothing heavy is imported, so that `--help` stays quick.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass

from embedding_estimate import optimizers
from embedding_estimate.settings.choices import (
    AMONG_WORDS,
    BY_EFFORT,
    EFFORTS,
    FORMATS,
    MEASURES,
    ONE_WORD,
    PARTS,
    PROMPT_TYPES,
    TOKEN_SOURCES,
    USES,
    WORDS,
)
from embedding_estimate.settings.parameters import Parameter, setting

SEED_LIMIT = 2_000_000_000  # larger ones are `teacher.SELECT_SEED`'s and `REPORT_SEED`'s
LONGEST_PROMPT = 100_000  # characters
LONGEST_NAME = 100  # characters of a sampler's or a schedule's
MOST_LINES = 200


@dataclass(frozen=True)
class Table:
    """A field for each parameter; `Settings` says what their values mean together."""

    text: str = setting(
        "", "Text", "The prompt to turn into an embedding, in the WebUI's syntax.", longest=LONGEST_PROMPT
    )
    prompt_type: str = setting("Prompt", "Prompt type", "Where you will type the embedding.", choices=PROMPT_TYPES)
    use: str = setting(
        AMONG_WORDS,
        "Use",
        "How you will type the embedding. Among other words: it is trained in prompts of many kinds. Alone: it is "
        "the whole prompt, and keeps more of the weights' effect.",
        choices=USES,
    )
    other_prompt: str = setting(
        "",
        "Other prompt",
        "The negative prompt that you use with the text. For a negative embedding: some positive prompts that you "
        "use with it, one per line, so that it does not fit a single picture only.",
        longest=LONGEST_PROMPT,
        lines=MOST_LINES,
    )
    part: str = setting(
        "Attention",
        "Training part",
        "What is matched. Attention: what the U-Net's cross-attentions read; quick, keeps the weights. U-Net: its "
        "predictions; slow, keeps the weights, takes AND. Attention + U-Net: both in turn. Transformer: the text "
        "encoder's hidden states; quickest, but loses the weights in SD1 and SD2.",
        choices=PARTS,
    )
    effort: str = setting(
        "Balanced",
        "Effort",
        "How much work goes into it, where other settings leave that open. Quick: half the latents and steps, and "
        "figures without images. Thorough: twice as many, and the figures of the whole protocol.",
        choices=tuple(EFFORTS),
    )
    seconds: float = setting(
        0.0,
        "Seconds",
        "Choose Effort by time: the highest that is expected to take no longer than this, otherwise Quick. Finding out "
        "takes a few seconds of them. 0 = as Effort says.",
        unit="seconds",
        minimum=0.0,
        maximum=86_400.0,
    )
    tokens: int = setting(
        0,
        "Tokens",
        "Number of vectors. 0 = as many as the text has tokens, so that the words after the embedding keep their "
        "places.",
        minimum=0,
        maximum=75,
    )
    token_source: str = setting(
        "Number",
        "Token count from",
        "Where the number of vectors comes from: the setting Tokens, or the token count of the initial prompt.",
        choices=TOKEN_SOURCES,
    )
    initial_prompt: str = setting(
        "",
        "Initial prompt",
        "The training starts from the token vectors of this prompt. It may contain embeddings. Empty: the text. "
        "Surplus vectors are cut, and missing ones are zeros.",
        longest=LONGEST_PROMPT,
    )
    typed_weight: float = setting(
        1.0,
        "Typed weight",
        "The weight that you will type with the name, as in (name:1.2). It has effects that vectors cannot have. "
        "1 = no weight, 0 = find the best weight.",
        minimum=0.0,
        maximum=2.0,
    )
    words: str = setting(
        ONE_WORD,
        "Words",
        "One: one word stands for the prompt. One per weight: one word for each part of the text that has its own "
        "weight, typed as in (name-a:1.4) name-b; closer, but more to type. As few as needed: the fewest words "
        "that reach the emphasis goal.",
        choices=WORDS,
    )
    emphasis_goal: float = setting(
        0.9,
        "Emphasis goal",
        "Used by Words: As few as needed. The share of the weights' effect that the words must reach, measured "
        "in the contexts that the best vectors are chosen by.",
        minimum=0.0,
        maximum=1.0,
    )
    templates: str = setting(
        "",
        "Training contexts",
        "Prompts to train in, one per line, with {} in place of the embedding. Empty: prompts of many kinds and "
        "the embedding by itself; with Use: Alone, only the embedding by itself. LBFGS uses all of them in each "
        "step, or first some where they are 32 and more; other optimizers always use some.",
        longest=LONGEST_PROMPT,
        lines=MOST_LINES,
    )
    learning_steps: int = setting(
        0,
        "Learning steps",
        f"Number of updates of the vectors. 0 = choose automatically: {optimizers.FEW_STEPS} for Attention with LBFGS "
        f"({optimizers.CHEAP_STEPS} with Use: Alone), {optimizers.OPTIMIZERS['Adam'].steps} with Adam and AdamW, "
        f"otherwise {optimizers.OptimizerRow.steps}. Effort: Quick halves the number, Thorough doubles it.",
        unit="steps",
        minimum=0,
        maximum=100_000,
    )
    rate: float = setting(
        0.0,
        "Learning rate",
        "Step size, in standard deviations of the model's token vectors. 0 = choose automatically.",
        minimum=0.0,
        maximum=1000.0,
    )
    optimizer: str = setting(
        optimizers.AUTOMATIC,
        "Optimizer",
        "Automatic: LBFGS for Attention, Adam for the other parts. LBFGS draws its latents once and keeps them.",
        choices=(optimizers.AUTOMATIC, *optimizers.OPTIMIZERS),
        removed=optimizers.REMOVED_OPTIMIZERS,
    )
    loss: str = setting("MSE", "Loss", "How two predictions are compared.", choices=tuple(optimizers.LOSSES))
    scheduler: str = setting(
        "constant",
        "Learning rate scheduler",
        "How the learning rate changes during the training.",
        choices=tuple(optimizers.SCHEDULERS),
        removed=optimizers.REMOVED_SCHEDULERS,
    )
    batch: int = setting(
        0,
        "Batch size",
        "Noisy latents that are compared in each learning step. 0 = four, and as many as the device's free memory "
        "holds wherever that only saves time.",
        minimum=0,
        maximum=256,
    )
    attention_memory: int = setting(
        512,
        "Attention memory",
        "Memory for what the Attention part records of the cross-attentions. With less memory it records less.",
        unit="MB",
        minimum=1,
        maximum=65536,
    )
    checkpointing: bool = setting(
        False,
        "Save memory",
        "Takes less memory and more time: gradient checkpointing in the U-Net, and one context at a time.",
    )
    early_stop: int = setting(
        0,
        "Early stop",
        "Stop after this number of checks in a row without progress on held-out latents. 0 = never.",
        unit="checks",
        minimum=0,
        maximum=1000,
    )
    sampler: str = setting(
        "Euler",
        "Sampler",
        "Draws the latents that the vectors are trained on. The Attention part always uses Euler.",
        longest=LONGEST_NAME,
    )
    schedule: str = setting(
        "Karras", "Schedule type", "Noise levels of the sampler that draws the latents.", longest=LONGEST_NAME
    )
    steps: int = setting(
        10,
        "Sampling steps",
        "Number of steps of the sampler that draws the latents. The Attention part takes 6 at most.",
        minimum=1,
        maximum=150,
    )
    guidance_scale: float = setting(
        7.0, "CFG scale", "Guidance scale of the sampler that draws the latents.", minimum=1.0, maximum=30.0
    )
    width: int = setting(
        0, "Width", "Image width of the latents. 0 = the model's own.", unit="pixels", minimum=0, maximum=2048
    )
    height: int = setting(
        0, "Height", "Image height of the latents. 0 = the model's own.", unit="pixels", minimum=0, maximum=2048
    )
    seed: int = setting(
        0, "Seed", "Random seed of the latents and of all other random choices.", minimum=0, maximum=SEED_LIMIT
    )
    name: str = setting("", "Name", "The word to type in prompts. Choose a made-up word.")
    overwrite: bool = setting(False, "Overwrite", "Replace the embedding that has this name.")
    format: str = setting(
        "safetensors", "File format", "Choose pt only for programs that cannot read safetensors.", choices=FORMATS
    )
    save_every: int = setting(
        0,
        "Save every n steps",
        "Also save the best vectors so far, every n steps. 0 = save only the result.",
        unit="steps",
        minimum=0,
        maximum=100_000,
    )
    preview_every: int = setting(
        0,
        "Preview every n steps",
        "Make pictures of one seed, every n steps: of the prompt, the embedding and the empty prompt. 0 = none.",
        unit="steps",
        minimum=0,
        maximum=100_000,
    )
    measure: str = setting(
        BY_EFFORT,
        "Measure",
        "What is measured after the embedding is saved. By effort: as much as fits Effort. Quick: figures from a few "
        "states, with their standard errors, and images of one seed. Full: figures by the whole protocol, and images "
        "of 16 seeds, which take longer than the training.",
        choices=MEASURES,
    )
    private: bool = setting(
        False, "Keep the prompt out of the file", "The file then contains neither the text nor any other prompt."
    )


def _parameters() -> tuple[Parameter, ...]:
    kinds = typing.get_type_hints(Table)
    return tuple(
        Parameter(name=f.name, kind=kinds[f.name], default=f.default, **f.metadata) for f in dataclasses.fields(Table)
    )


PARAMETERS = _parameters()
PROMPT = next(parameter for parameter in PARAMETERS if parameter.name == "text")
