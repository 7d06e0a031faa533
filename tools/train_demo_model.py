"""Train the demo model: a small Stable Diffusion 1 that knows a world of shapes and colours.

    python tools/train_demo_model.py --seed 0 --palette primary --work WORK --out OUT

runs the stages vae, text, unet and export one after the other, about two hours on two cores. Every
stage leaves checkpoints in the work folder: a run that was interrupted goes on where it stopped,
and a stage that is complete is only loaded. Remove WORK/<stage>.pt to train a stage again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from demo_checkpoint import Checkpoint
from demo_export import export_model
from demo_text import CaptionCoder, train_text_encoder
from demo_unet import train_unet
from demo_vae import train_vae
from demo_world import PALETTES
from transformers import CLIPTokenizer

TOKENIZER = Path(__file__).resolve().parent.parent / "embedding_estimate/demo/shapes/tokenizer"
THREADS = 2  # on any machine: the last bits of a sum depend on how it is shared out
STAGES = ("vae", "text", "unet", "export")


def main() -> None:
    """Run the stages up to the last one asked for."""
    arguments = _parse_arguments()
    torch.set_num_threads(THREADS)
    work, seed, palette = arguments.work, arguments.seed, PALETTES[arguments.palette]
    last = STAGES.index(arguments.until)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    vae = train_vae(palette, arguments.vae_steps, seed, Checkpoint(work / "vae.pt"))
    if last >= STAGES.index("text"):
        encoder = train_text_encoder(tokenizer, palette, arguments.text_steps, seed, Checkpoint(work / "text.pt"))
    if last >= STAGES.index("unet"):
        coder = CaptionCoder(tokenizer, palette)
        unet = train_unet(
            vae,
            encoder,
            coder,
            palette,
            arguments.unet_cycles,
            seed,
            Checkpoint(work / "unet.pt"),
            work / "latents.pt",
        )
    if last >= STAGES.index("export"):
        export_model(arguments.out, vae, encoder, unet, TOKENIZER)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--palette", choices=sorted(PALETTES), default="primary")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--until", choices=STAGES, default="export", help="last stage to run")
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=900)
    parser.add_argument("--unet-cycles", type=int, nargs="+", default=[6000, 800, 2000], help="steps of each cycle")
    return parser.parse_args()


if __name__ == "__main__":
    main()
