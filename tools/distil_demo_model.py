"""Give the demo model another text side: new encoders learn the rows that its own text encoder gives.

    python tools/distil_demo_model.py --kind deep --work WORK --out OUT
    python tools/distil_demo_model.py --kind sdxl --work WORK --out OUT

"deep" is a Stable Diffusion 1 whose text encoder has 12 layers, "sdxl" has two encoders without a final norm, the
pooled state and time ids. VAE and U-Net stay as they are, so every word means what it means to the demo model, and
training takes minutes instead of hours. See docs/demo-model.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from demo_captions import phrases
from demo_checkpoint import Checkpoint, Progress, learning_rate
from demo_export import export_model
from demo_text import SECOND_PAD, CaptionCoder, Encoder, EncoderShape, final_norm, new_text_encoder
from demo_texts import Reader, Texts
from demo_unet import new_scheduler, new_unet, take_weights
from demo_vae import draw_latents
from demo_world import PALETTES, random_scene
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

DEMO = Path(__file__).resolve().parent.parent / "embedding_estimate/demo/shapes"
PALETTE = PALETTES["primary"]
SHAPES = {
    "deep": [EncoderShape(layers=12)],
    "sdxl": [
        EncoderShape(layers=7, final_norm=False),
        EncoderShape(layers=9, final_norm=False, activation="gelu", pad_token=SECOND_PAD, pooled=True),
    ],
}
ROWS = 77
LIMITS = (16, 32, 75)  # most tokens of a text, another one in each step
BATCH = 16
PEAK_RATE = 1e-3
NOISE = 0.3  # of a weight's spread, added to the demo model's weights to begin with
MEAN = -0.5  # of states without a final norm, over their spread: emphasis divides by it
POOLED_SHARE = 0.05  # of the time embedding's spread, what the pooled state adds to it
HELD_OUT = 64  # texts to compare the models on
TIMES = (200, 400, 600, 800)  # of 1000, to compare them at

Text = list[list[int]]  # token ids, as a CaptionCoder takes them


def draw_text(coder: CaptionCoder, rng: np.random.Generator, limit: int) -> Text:
    """Captions, one or several joined, with their words in any order now and then, and any tokens strewn in."""
    captions = [phrases(random_scene(PALETTE, rng), rng) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
    words = " , ".join(" ".join(phrase.text for phrase in caption) for caption in captions).split()
    order = rng.random()
    if order < 0.3:
        rng.shuffle(words)
    elif order < 0.33:
        words = []
    tokens = [token for word in words for token in coder.ids(word)]
    if rng.random() < 0.33:
        for _ in range(rng.integers(1, 4)):
            tokens.insert(rng.integers(len(tokens) + 1), int(rng.integers(49_406)))
    return [tokens[:limit]]


def told(texts: Texts, drawn: list[Text], rows: int = ROWS) -> dict[str, Any]:
    """The U-Net's arguments for texts, of which only the first rows are read."""
    tokens = torch.from_numpy(np.stack([texts.encode(text)[0][:, :rows] for text in drawn]))
    return texts.told(tokens, torch.ones(len(drawn), 2))


def contexts(texts: Texts, drawn: list[Text], rows: int = ROWS) -> Tensor:
    """The contexts of texts (B, rows, width)."""
    states: Tensor = told(texts, drawn, rows)["encoder_hidden_states"]
    return states


def keys_and_values(unet: UNet2DConditionModel) -> Tensor:
    """A factor R (width, width): |row R| is the size of all keys and values that the U-Net makes of a context's row."""
    weights = [module.weight for name, module in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    return torch.linalg.qr(torch.cat(weights), mode="r").R.T


def new_texts(shapes: list[EncoderShape], teacher: CLIPTextModel, seed: int) -> Texts:
    """Encoders to begin with: the teacher's layers, each used once or twice, with noise on their weights."""
    torch.manual_seed(seed)
    readers = []
    for shape in shapes:
        encoder = new_text_encoder(shape)
        _stretch(teacher, encoder, layers=shape.layers - (not shape.final_norm))
        final_norm(encoder).load_state_dict(final_norm(teacher).state_dict())
        tokenizer = CLIPTokenizer.from_pretrained(DEMO / "tokenizer", pad_token=shape.pad_token)
        readers.append(Reader(shape, encoder, CaptionCoder(tokenizer, PALETTE)))
    return Texts(readers)


@torch.no_grad()
def _stretch(teacher: CLIPTextModel, encoder: Encoder, layers: int) -> None:
    """Fill the first layers; where two come from the same one, each adds half of what it adds."""
    for name in ("token_embedding", "position_embedding"):
        _part(encoder, name).load_state_dict(_part(teacher, name).state_dict())
    _part(encoder, "token_embedding").requires_grad_(False)
    theirs, ours = _part(teacher, "encoder.layers"), _part(encoder, "encoder.layers")
    sources = [layer * len(theirs) // layers for layer in range(layers)]
    for layer, source in zip(ours, sources, strict=False):
        layer.load_state_dict(theirs[source].state_dict())
        for name, weight in layer.named_parameters():
            if weight.dim() > 1:
                weight += NOISE * weight.std() * torch.randn_like(weight)
            if "out_proj" in name or "fc2" in name:
                weight /= sources.count(source)


def _part(encoder: Encoder, name: str) -> Any:
    return next(module for path, module in encoder.named_modules() if path.endswith(name))


@torch.no_grad()
def first_readout(teacher: Texts, texts: Texts, seed: int) -> torch.nn.Linear:
    """What reads the teacher's rows off the new ones: nothing where these have a norm, otherwise a least-squares fit.

    States without a norm also get a mean, by their position rows: layers do not see it, for each begins with a norm.
    """
    readout = torch.nn.Linear(texts.width, teacher.width, bias=False)
    if texts.readers[0].shape.final_norm:
        torch.nn.init.eye_(readout.weight).requires_grad_(False)
        return readout
    rng = np.random.default_rng([seed, 6])
    drawn = [draw_text(teacher.readers[0].coder, rng, ROWS - 2) for _ in range(HELD_OUT)]
    states = contexts(texts, drawn).split([reader.shape.width for reader in texts.readers], dim=-1)
    for reader, part in zip(texts.readers, states, strict=True):
        _part(reader.encoder, "position_embedding").weight += MEAN * part.std() - part.mean()
    fit = torch.linalg.lstsq(contexts(texts, drawn).flatten(0, 1), contexts(teacher, drawn).flatten(0, 1)).solution
    readout.weight.copy_(fit.T)
    return readout


def distil(teacher: Texts, texts: Texts, unet: UNet2DConditionModel, steps: int, seed: int, file: Path) -> Tensor:
    """Train the encoders and what reads them, on the error of the keys and values; returns the readout (width, W)."""
    readout = first_readout(teacher, texts, seed)
    parts = torch.nn.ModuleList([*(reader.encoder for reader in texts.readers), readout])
    trained = [weight for weight in parts.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.99), weight_decay=1e-3)
    checkpoint, progress, metric = Checkpoint(file), Progress(file.stem, steps), keys_and_values(unet)
    for step in range(checkpoint.restore(parts=parts, optimizer=optimizer), steps):
        rng = np.random.default_rng([seed, 5, step])
        limit = int(rng.choice(LIMITS))
        drawn = [draw_text(teacher.readers[0].coder, rng, limit) for _ in range(BATCH)]
        rows = ROWS if step % 3 == 0 else limit + 2
        wanted = contexts(teacher, drawn, rows) @ metric  # (B, rows, width)
        error = (readout(contexts(texts, drawn, rows)) @ metric - wanted).square().mean()
        loss = error / (wanted - wanted.mean((0, 1))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, PEAK_RATE)
        optimizer.step()
        progress.report(step, unexplained=loss.item())
        checkpoint.save_now_and_then(step + 1, last=step + 1 == steps, parts=parts, optimizer=optimizer)
    parts.eval().requires_grad_(False)
    return readout.weight


@torch.no_grad()
def unet_for(texts: Texts, unet: UNet2DConditionModel, readout: Tensor) -> UNet2DConditionModel:
    """The U-Net with keys and values of the new encoders' rows, and a little of their pooled state."""
    new = new_unet(texts)
    take_weights(new, unet)
    theirs = unet.state_dict()
    for name, weight in new.named_parameters():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            weight.copy_(theirs[name] @ readout)
    if texts.pooled_width:
        _let_pooled_in(new, texts)
    return new.eval().requires_grad_(False)


def _let_pooled_in(unet: UNet2DConditionModel, texts: Texts) -> None:
    """Scale what random weights make of the pooled state; the empty prompt's adds nothing."""
    rng, last = np.random.default_rng(0), unet.add_embedding.linear_2
    drawn = [[[]], *(draw_text(texts.readers[0].coder, rng, ROWS - 2) for _ in range(HELD_OUT))]
    given = told(texts, drawn)["added_cond_kwargs"]
    sizes = unet.add_time_proj(given["time_ids"].flatten()).view(len(drawn), -1)
    torch.nn.init.zeros_(last.bias)
    added = unet.add_embedding(torch.cat([given["text_embeds"], sizes], dim=-1))
    times = unet.time_embedding(unet.time_proj(torch.arange(0, 1000, 20)))
    share = POOLED_SHARE * times.std(0).norm() / (added[1:] - added[0]).square().sum(-1).mean().sqrt()
    last.weight.mul_(share)
    last.bias.copy_(-share * added[0])


@torch.no_grad()
def explained(
    teacher: Texts, unet: UNet2DConditionModel, texts: Texts, new: UNet2DConditionModel, vae: AutoencoderKL
) -> float:
    """How much of what random texts do to the U-Net's predictions comes out of the new model too; 1 is all of it."""
    rng, generator = np.random.default_rng(99), torch.Generator().manual_seed(99)
    latents = draw_latents(vae, PALETTE, HELD_OUT, seed=99) * vae.config.scaling_factor
    drawn = [draw_text(teacher.readers[0].coder, rng, ROWS - 2) for _ in range(HELD_OUT)]
    error = baseline = 0.0
    for time in TIMES:
        alpha = new_scheduler().alphas_cumprod[time]
        noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * torch.randn(latents.shape, generator=generator)
        wanted = unet(noised, time, **told(teacher, drawn)).sample
        error += (new(noised, time, **told(texts, drawn)).sample - wanted).square().sum().item()
        baseline += (unet(noised, time, **told(teacher, [[[]]] * HELD_OUT)).sample - wanted).square().sum().item()
    return 1 - error / baseline


def main() -> None:
    """Train, compare with the demo model, and write the new one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=SHAPES, required=True)
    parser.add_argument("--steps", type=int, default=470)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)

    encoder = CLIPTextModel.from_pretrained(DEMO / "text_encoder").float().eval().requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(DEMO / "unet").float().eval().requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(DEMO / "vae").float().eval().requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(DEMO / "tokenizer")
    teacher = Texts([Reader(EncoderShape(), encoder, CaptionCoder(tokenizer, PALETTE))])
    texts = new_texts(SHAPES[arguments.kind], encoder, arguments.seed)
    readout = distil(teacher, texts, unet, arguments.steps, arguments.seed, arguments.work / f"{arguments.kind}.pt")
    new = unet_for(texts, unet, readout)
    print(f"explained of the demo model's predictions: {explained(teacher, unet, texts, new, vae):.4f}")
    export_model(arguments.out, vae, [reader.encoder for reader in texts.readers], new, DEMO / "tokenizer")


if __name__ == "__main__":
    main()
