"""The demo model's text encoders, each trained alone to know at every token what the caption has said so far.

Linear heads on what the U-Net gets tell each attribute (or that it has not been mentioned) at every
position, which plays the part of CLIP's contrastive training; the heads are thrown away.
"""

from dataclasses import dataclass

import numpy as np
import torch
from demo_captions import Phrase, phrases
from demo_checkpoint import Checkpoint, Progress, learning_rate
from demo_world import Palette, random_scene
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedding_estimate.demo.words import POSITIONS, SHAPES, SIZES, STYLES

LENGTH = 77  # tokens
BATCH = 48
PEAK_RATE = 1e-3
TOKEN_RATE = 0.15  # of the other parameters' rate: trained rows shall stay near the untrained ones
SECOND_PAD = "!"  # fills up what SDXL's second encoder reads
MEAN = -0.15  # of the final norm's bias at first
UNNORMED_MEAN = -0.5  # of states without a norm, which moves by 0.1 from caption to caption
IGNORED = -100  # positions within a phrase, where its facts are half said

Encoder = CLIPTextModel | CLIPTextModelWithProjection


@dataclass(frozen=True)
class EncoderShape:
    """What sets one text encoder apart from another; the defaults are SD1's, narrower and with half the layers."""

    width: int = 96
    layers: int = 6
    activation: str = "quick_gelu"
    heads: int = 6
    pad_token: str = "<|endoftext|>"
    final_norm: bool = True  # without it the U-Net gets the last but one hidden states, as they are
    pooled: bool = False  # and also the state at the end token, projected


def encoder_shapes(family: str, layers: int) -> list[EncoderShape]:
    """The encoders of a family, "sd1" or "sdxl"; SDXL's second has a third more layers than the first."""
    if family == "sd1":
        return [EncoderShape(layers=layers)]
    second = EncoderShape(
        width=128,
        layers=layers + layers // 3,
        activation="gelu",
        heads=8,
        pad_token=SECOND_PAD,
        final_norm=False,
        pooled=True,
    )
    return [EncoderShape(layers=layers, final_norm=False), second]


def new_text_encoder(shape: EncoderShape) -> Encoder:
    """A CLIP text encoder.

    The final LayerNorm's bias starts off zero mean: emphasis divides by the mean of the context, and
    a mean about zero would make that a lottery (CLIP ViT-L/14 has about -0.1). States that it does not
    come behind are kept off zero in training.
    """
    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        projection_dim=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=LENGTH,
        hidden_act=shape.activation,
        bos_token_id=49_406,
        eos_token_id=49_407,
        pad_token_id=49_407,
    )
    encoder = (CLIPTextModelWithProjection if shape.pooled else CLIPTextModel)(config)
    torch.nn.init.normal_(final_norm(encoder).bias, mean=MEAN, std=0.1)
    return encoder


def final_norm(encoder: Encoder) -> torch.nn.LayerNorm:
    """The LayerNorm behind the last layer."""
    return next(module for name, module in encoder.named_modules() if name.endswith("final_layer_norm"))


def read(encoder: Encoder, shape: EncoderShape, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the U-Net gets of token ids (B, T): states (B, T, width) and, of a pooled encoder, (B, width)."""
    output = encoder(tokens, output_hidden_states=not shape.final_norm)
    states = output.last_hidden_state if shape.final_norm else output.hidden_states[-2]
    return states, output.text_embeds if shape.pooled else None


class CaptionCoder:
    """Turns captions in pieces into token ids and, for training, what is known at each token."""

    def __init__(self, tokenizer: CLIPTokenizer, palette: Palette) -> None:
        words = {
            "shape": SHAPES,
            "colour": tuple(palette.colours),
            "background": tuple(palette.backgrounds),
            "size": SIZES,
            "position": POSITIONS,
        }
        if palette.pairs:
            words |= {f"other {name}": words[name] for name in ("shape", "colour", "size", "position")}
        words |= {style: (style,) for style in STYLES}
        self.words = words
        self.groups = {name: index for index, name in enumerate(words)}
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def class_counts(self) -> list[int]:
        """Classes of each attribute: not mentioned, or one of its words."""
        return [1 + len(words) for words in self.words.values()]

    def ids(self, text: str) -> list[int]:
        """Token ids of a phrase; a whole caption has its phrases' tokens, for no token spans a space."""
        if text not in self._ids:
            self._ids[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._ids[text]

    def encode(self, pieces: list[Phrase | list[int]]) -> tuple[np.ndarray, np.ndarray, int]:
        """Tokens of a caption made of phrases and bare token ids.

        Returns:
            Token ids (77,), classes known at each token (77, attributes), position of the end token.
        """
        tokens = [self._tokenizer.bos_token_id]
        classes = np.zeros((LENGTH, len(self.words)), dtype=np.int64)
        for piece in pieces:
            ids = self.ids(piece.text) if isinstance(piece, Phrase) else piece
            first, last = len(tokens), len(tokens) + len(ids) - 1
            tokens += ids
            for attribute, word in piece.facts if isinstance(piece, Phrase) else ():
                group = self.groups[attribute]
                classes[first:last, group] = IGNORED
                classes[last:, group] = 1 + self.words[attribute].index(word)
        end = len(tokens)
        tokens += [self._tokenizer.eos_token_id] + [self._tokenizer.pad_token_id] * (LENGTH - 1 - end)
        return np.array(tokens), classes, end


def train_text_encoder(
    shape: EncoderShape,
    tokenizer: CLIPTokenizer,
    palette: Palette,
    steps: int,
    seed: int,
    checkpoint: Checkpoint,
    device: str = "cpu",
    mixed: bool = True,
) -> Encoder:
    """Train encoder and heads on captions, on `device`; meaningless words are strewn in, for they shall stay so.

    `mixed` is mixed precision, with bfloat16.
    """
    torch.manual_seed(seed)
    encoder = new_text_encoder(shape).to(device)
    coder = CaptionCoder(tokenizer, palette)
    counts = coder.class_counts()
    heads = torch.nn.ModuleList(torch.nn.Linear(shape.width, sum(counts)) for _ in range(1 + shape.pooled)).to(device)
    optimizer = torch.optim.AdamW(_parameter_groups(encoder, heads), betas=(0.9, 0.99))
    first = checkpoint.restore(model=encoder, heads=heads, optimizer=optimizer)
    progress = Progress(checkpoint.path.stem, steps)
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 3, step])
        tokens, classes, longest = _batch(coder, palette, rng)
        if step % 4:  # most of the 77 positions are end tokens; a quarter of the steps is enough for those
            tokens, classes = tokens[:, : longest + 2], classes[:, : longest + 2]
        tokens, classes = tokens.to(device), classes.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            states, pooled = read(encoder, shape, tokens)  # (B, 77, width), (B, width) or None
        loss, all_right = _told(heads[0], states, classes, counts)
        shown = {"all_right": all_right}
        if not shape.final_norm:
            loss = loss + distance_from_norm(states.float())
        if pooled is not None:
            pooled_loss, shown["pooled_right"] = _told(heads[1], pooled[:, None], classes[:, -1:], counts)
            loss = loss + pooled_loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, steps, PEAK_RATE)
        optimizer.step()
        progress.report(step, loss=loss.item(), **shown)
        checkpoint.save_now_and_then(step + 1, last=step + 1 == steps, model=encoder, heads=heads, optimizer=optimizer)
    return encoder.eval().requires_grad_(False)


def distance_from_norm(states: torch.Tensor) -> torch.Tensor:
    """How far states (B, T, width) are from a spread of 1 and, each caption's, from the mean that they shall have.

    Nothing else bounds states without a norm: they grew to a spread of 6, with means of 0 here and -1 there.
    """
    return (states.std() - 1).square() + (states.mean((1, 2)) - UNNORMED_MEAN).square().mean()


def _told(
    heads: torch.nn.Module, states: torch.Tensor, classes: torch.Tensor, counts: list[int]
) -> tuple[torch.Tensor, float]:
    """How badly states (B, T, width) tell the classes (B, T, attributes), and how many of the last ones tell all."""
    logits = heads(states.float()).split(counts, dim=-1)  # per attribute (B, T, classes)
    losses = [
        functional.cross_entropy(part.flatten(0, 1), classes[..., group].flatten(), ignore_index=IGNORED)
        for group, part in enumerate(logits)
    ]
    right = [(part[:, -1].argmax(-1) == classes[:, -1, group]) for group, part in enumerate(logits)]
    return torch.stack(losses).sum(), torch.stack(right).all(0).float().mean().item()


def _parameter_groups(encoder: Encoder, heads: torch.nn.Module) -> list[dict]:
    """Token rows learn slowly and without decay, the rest at the full rate."""
    rows = [encoder.get_input_embeddings().weight]
    others = [p for p in encoder.parameters() if p is not rows[0]] + list(heads.parameters())
    return [
        {"params": rows, "share": TOKEN_RATE, "weight_decay": 0.0},
        {"params": others, "share": 1.0, "weight_decay": 1e-3},
    ]


def _batch(coder: CaptionCoder, palette: Palette, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Captions, a third of them with random tokens strewn in.

    Returns:
        Token ids (B, 77), classes (B, 77, attributes), length of the longest caption.
    """
    tokens, classes, ends = [], [], []
    for _ in range(BATCH):
        pieces: list[Phrase | list[int]] = list(phrases(random_scene(palette, rng), rng))
        if rng.random() < 0.33:
            for _ in range(rng.integers(1, 4)):
                pieces.insert(rng.integers(len(pieces) + 1), [int(rng.integers(49_406))])
        ids, known, end = coder.encode(pieces)
        ends.append(end)
        tokens.append(ids)
        classes.append(known)
    return torch.from_numpy(np.stack(tokens)), torch.from_numpy(np.stack(classes)), max(ends)
