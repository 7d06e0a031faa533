"""The demo model's text encoder, trained alone to know at every token what the caption has said so far.

Linear heads on the hidden states tell each attribute (or that it has not been mentioned) at every
position, which plays the part of CLIP's contrastive training; the heads are thrown away.
"""

import numpy as np
import torch
from demo_captions import Phrase, phrases
from demo_checkpoint import Checkpoint, Progress, learning_rate
from demo_world import Palette, random_scene
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from embedding_estimate.demo.words import POSITIONS, SHAPES, SIZES, STYLES

LENGTH = 77  # tokens
WIDTH = 96
BATCH = 48
PEAK_RATE = 1e-3
TOKEN_RATE = 0.15  # of the other parameters' rate: trained rows shall stay near the untrained ones
IGNORED = -100  # positions within a phrase, where its facts are half said


def new_text_encoder() -> CLIPTextModel:
    """SD1's text encoder, narrower and with half the layers.

    The final LayerNorm's bias starts off zero mean: emphasis divides by the mean of the context, and
    a mean about zero would make that a lottery (CLIP ViT-L/14 has about -0.1).
    """
    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=49_406,
        eos_token_id=49_407,
        pad_token_id=49_407,
    )
    encoder = CLIPTextModel(config)
    torch.nn.init.normal_(final_norm(encoder).bias, mean=-0.15, std=0.1)
    return encoder


def final_norm(encoder: CLIPTextModel) -> torch.nn.LayerNorm:
    """The LayerNorm behind the last layer."""
    return next(module for name, module in encoder.named_modules() if name.endswith("final_layer_norm"))


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
        tokens += [self._tokenizer.eos_token_id] * (LENGTH - end)
        return np.array(tokens), classes, end


def train_text_encoder(
    tokenizer: CLIPTokenizer, palette: Palette, steps: int, seed: int, checkpoint: Checkpoint
) -> CLIPTextModel:
    """Train encoder and heads on captions; words of no meaning are strewn in, for they shall stay without."""
    torch.manual_seed(seed)
    encoder = new_text_encoder()
    coder = CaptionCoder(tokenizer, palette)
    heads = torch.nn.Linear(WIDTH, sum(coder.class_counts()))
    optimizer = torch.optim.AdamW(_parameter_groups(encoder, heads), betas=(0.9, 0.99))
    first = checkpoint.restore(model=encoder, heads=heads, optimizer=optimizer)
    progress = Progress("text", steps)
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 3, step])
        tokens, classes, longest = _batch(coder, palette, rng)
        if step % 4:  # most of the 77 positions are end tokens; a quarter of the steps is enough for those
            tokens, classes = tokens[:, : longest + 2], classes[:, : longest + 2]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encoder(tokens).last_hidden_state  # (B, 77, 96)
        logits = heads(hidden.float()).split(coder.class_counts(), dim=-1)  # per attribute (B, 77, classes)
        losses = [
            functional.cross_entropy(part.flatten(0, 1), classes[..., group].flatten(), ignore_index=IGNORED)
            for group, part in enumerate(logits)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, steps, PEAK_RATE)
        optimizer.step()
        right = [(part[:, -1].argmax(-1) == classes[:, -1, group]) for group, part in enumerate(logits)]
        progress.report(step, loss=loss.item(), all_right=torch.stack(right).all(0).float().mean().item())
        checkpoint.save_now_and_then(step + 1, last=step + 1 == steps, model=encoder, heads=heads, optimizer=optimizer)
    return encoder.eval().requires_grad_(False)


def _parameter_groups(encoder: CLIPTextModel, heads: torch.nn.Linear) -> list[dict]:
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
