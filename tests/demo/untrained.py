"""The text sides of the demo's families before any training."""

import torch
from demo_text import CaptionCoder, encoder_shapes, new_text_encoder
from demo_texts import Reader, Texts
from demo_world import PALETTES
from shaking import shaken
from transformers import CLIPTokenizer

from embedding_estimate.demo import demo_model_path

TOKENIZER = demo_model_path() / "tokenizer"


def untrained_texts(family: str) -> Texts:
    """Random encoders of three layers, SDXL's second of four."""
    torch.manual_seed(shaken(0))
    readers = []
    for shape in encoder_shapes(family, layers=3):
        coder = CaptionCoder(CLIPTokenizer.from_pretrained(TOKENIZER, pad_token=shape.pad_token), PALETTES["primary"])
        readers.append(Reader(shape, new_text_encoder(shape).eval().requires_grad_(False), coder))
    return Texts(readers)
