"""Train the demo model: a small Stable Diffusion 1 that knows a world of shapes and colours.

    python tools/train_demo_model.py --seed 0 --palette primary --work WORK --out OUT

runs the stages vae, text, unet and export one after the other, about two hours on two cores. Every
stage leaves checkpoints in the work folder: a run that was interrupted goes on where it stopped,
and a stage that is complete is only loaded. Remove WORK/<stage>.pt to train a stage again.

    python tools/train_demo_model.py --family sdxl --start-from embedding_estimate/demo/shapes --work WORK --out OUT

makes a small SDXL of the same world, --layers another depth of text encoder, --world pairs a model of pictures with
one object or two; see docs/demo-model.md.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from demo_checkpoint import Checkpoint
from demo_export import export_model
from demo_text import CaptionCoder, encoder_shapes, train_text_encoder
from demo_texts import Reader, Texts
from demo_unet import train_unet
from demo_vae import train_vae
from demo_world import PALETTES, Palette
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

TOKENIZER = Path(__file__).resolve().parent.parent / "embedding_estimate/demo/shapes/tokenizer"
THREADS = 2  # on any machine: the last bits of a sum depend on how it is shared out
STAGES = ("vae", "text", "unet", "export")


def main() -> None:
    """Run the stages up to the last one asked for."""
    arguments = _parse_arguments()
    torch.set_num_threads(arguments.threads)
    work, seed, start = arguments.work, arguments.seed, arguments.start_from
    palette = replace(PALETTES[arguments.palette], pairs=arguments.world == "pairs")
    last = STAGES.index(arguments.until)
    work.mkdir(parents=True, exist_ok=True)
    if start:
        vae = AutoencoderKL.from_pretrained(start / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    else:
        vae = train_vae(palette, arguments.vae_steps, seed, Checkpoint(work / "vae.pt"))
    if last >= STAGES.index("text"):
        texts = _train_texts(arguments, palette)
    if last >= STAGES.index("unet"):
        unet = train_unet(
            vae,
            texts,
            palette,
            arguments.unet_cycles,
            seed,
            Checkpoint(work / "unet.pt"),
            work / "latents.pt",
            start=UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32) if start else None,
            workers=arguments.threads,
            device=arguments.device,
            mixed=not arguments.float32,
        )
    if last >= STAGES.index("export"):
        export_model(arguments.out, vae, [reader.encoder for reader in texts.readers], unet, TOKENIZER)


def _train_texts(arguments: argparse.Namespace, palette: Palette) -> Texts:
    """Train one encoder after the other."""
    readers = []
    for number, shape in enumerate(encoder_shapes(arguments.family, arguments.layers), start=1):
        tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, pad_token=shape.pad_token)
        checkpoint = Checkpoint(arguments.work / ("text.pt" if number == 1 else f"text_{number}.pt"))
        encoder = train_text_encoder(
            shape,
            tokenizer,
            palette,
            arguments.text_steps,
            arguments.seed,
            checkpoint,
            arguments.device,
            mixed=not arguments.float32,
        )
        readers.append(Reader(shape, encoder, CaptionCoder(tokenizer, palette)))
    return Texts(readers)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--palette", choices=sorted(PALETTES), default="primary")
    parser.add_argument("--world", choices=("single", "pairs"), default="single", help="one object, or one or two")
    parser.add_argument("--family", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--layers", type=int, default=6, help="of the text encoder, of SDXL's first")
    parser.add_argument("--start-from", type=Path, help="model to take the VAE from, and what fits of the U-Net")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--until", choices=STAGES, default="export", help="last stage to run")
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=900)
    parser.add_argument("--unet-cycles", type=int, nargs="+", default=[6000, 800, 2000], help="steps of each cycle")
    parser.add_argument("--device", default="cpu", help="of text encoders and U-Net; the weights depend on it too")
    parser.add_argument("--float32", action="store_true", help="no bfloat16: faster on a CPU without it; other weights")
    parser.add_argument("--threads", type=int, default=THREADS, help="the weights depend on it, in their last bits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
