"""The parts of a U-Net and of a VAE under LDM's names, each with what it writes and reads in the widened model."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from ldm_widening import (
    EMPTY,
    LDM_GROUPS,
    UNET_GROUPS,
    Layout,
    Part,
    around_seam,
    first_copies,
    in_heads,
    padded,
    under,
    whole,
)

UNET_COPIES = LDM_GROUPS // UNET_GROUPS


def unet_parts(unet: UNet2DConditionModel) -> Iterator[Part]:
    """The parts of LDM's UNetModel."""
    narrow = unet.conv_in.out_channels
    skips = [around_seam(narrow, narrow)]
    yield from under("time_embed", _time_embedding(unet.time_embedding))
    yield Part("input_blocks.0.0", unet.conv_in, skips[0], whole(unet.conv_in.in_channels))
    for block in unet.down_blocks:
        for resnet, transformer in zip(block.resnets, block.attentions, strict=True):
            layout = around_seam(resnet.out_channels, narrow)
            yield from under(f"input_blocks.{len(skips)}.0", _resnet(resnet, skips[-1], layout))
            yield from under(f"input_blocks.{len(skips)}.1", _transformer(transformer, layout))
            skips.append(layout)
        for sampler in block.downsamplers or ():
            yield Part(f"input_blocks.{len(skips)}.0.op", sampler.conv, layout, first_copies(layout))
            skips.append(layout)
    yield from under("middle_block.0", _resnet(unet.mid_block.resnets[0], layout, layout))
    yield from under("middle_block.1", _transformer(unet.mid_block.attentions[0], layout))
    yield from under("middle_block.2", _resnet(unet.mid_block.resnets[1], layout, layout))
    outputs = len(skips)
    for block in unet.up_blocks:
        for resnet, transformer in zip(block.resnets, block.attentions, strict=True):
            name = f"output_blocks.{outputs - len(skips)}"
            left = len(set(layout))
            both = layout + [left + channel for channel in skips.pop()]
            layout = around_seam(resnet.out_channels, narrow)
            yield from under(f"{name}.0", _resnet(resnet, both, layout))
            yield from under(f"{name}.1", _transformer(transformer, layout))
        for sampler in block.upsamplers or ():
            yield Part(f"{name}.2.conv", sampler.conv, layout, first_copies(layout))
    yield Part("out.0", unet.conv_norm_out, layout)
    yield Part("out.2", unet.conv_out, whole(unet.conv_out.out_channels), first_copies(layout))


def vae_parts(vae: AutoencoderKL) -> Iterator[Part]:
    """The parts of LDM's AutoencoderKL. Its levels count from the largest pictures, in the decoder too."""
    copies = LDM_GROUPS // vae.config.norm_num_groups
    for name in ("quant_conv", "post_quant_conv"):
        conv = getattr(vae, name)
        yield Part(name, conv, whole(conv.out_channels), whole(conv.in_channels))
    yield from under("encoder", _vae_ends(vae.encoder, copies))
    for level, block in enumerate(vae.encoder.down_blocks):
        yield from under(f"encoder.down.{level}", _vae_level(block, "downsample", block.downsamplers, copies))
    yield from under("decoder", _vae_ends(vae.decoder, copies))
    for level, block in enumerate(reversed(vae.decoder.up_blocks)):
        yield from under(f"decoder.up.{level}", _vae_level(block, "upsample", block.upsamplers, copies))


def _time_embedding(embedding: Any) -> Iterator[Part]:
    """Of n dimensions, half are cosines and half sines; the old frequencies 10000^(-2 i / n) are every fourth."""
    dimensions = embedding.linear_1.in_features * UNET_COPIES
    sinusoid = [EMPTY if place % UNET_COPIES else place // UNET_COPIES for place in range(dimensions)]
    hidden = _time(embedding.linear_2.out_features)
    yield Part("0", embedding.linear_1, hidden, sinusoid)
    yield Part("2", embedding.linear_2, hidden, hidden)


def _time(size: int) -> Layout:
    return padded(range(size), size * UNET_COPIES)


def _resnet(resnet: Any, inputs: Layout, outputs: Layout) -> Iterator[Part]:
    yield Part("in_layers.0", resnet.norm1, inputs)
    yield Part("in_layers.2", resnet.conv1, outputs, first_copies(inputs))
    yield Part("emb_layers.1", resnet.time_emb_proj, outputs, _time(resnet.time_emb_proj.in_features))
    yield Part("out_layers.0", resnet.norm2, outputs)
    yield Part("out_layers.3", resnet.conv2, outputs, first_copies(outputs))
    if resnet.conv_shortcut is not None:
        yield Part("skip_connection", resnet.conv_shortcut, outputs, first_copies(inputs))


def _transformer(transformer: Any, layout: Layout) -> Iterator[Part]:
    """Inside, every channel is repeated equally often, as a LayerNorm wants it."""
    (block,) = transformer.transformer_blocks
    inner = whole(len(set(layout))) * UNET_COPIES
    reads = first_copies(inner)
    yield Part("norm", transformer.norm, layout)
    yield Part("proj_in", transformer.proj_in, inner, first_copies(layout))
    yield from under("transformer_blocks.0", _block(block, inner, reads))
    yield Part("proj_out", transformer.proj_out, layout, reads)


def _block(block: Any, inner: Layout, reads: Layout) -> Iterator[Part]:
    yield Part("norm1", block.norm1, inner)
    yield from under("attn1", _attention(block.attn1, inner, reads, reads))
    yield Part("norm2", block.norm2, inner)
    yield from under("attn2", _attention(block.attn2, inner, reads, whole(block.attn2.to_k.in_features)))
    yield Part("norm3", block.norm3, inner)
    gated, _, last = block.ff.net  # GEGLU, dropout, linear
    size, places = last.in_features, last.in_features * UNET_COPIES
    value, gate = padded(range(size), places), padded(range(size, 2 * size), places)
    yield Part("ff.net.0.proj", gated.proj, value + gate, reads)
    yield Part("ff.net.2", last, inner, value)


def _attention(attention: Any, outputs: Layout, reads: Layout, context: Layout) -> Iterator[Part]:
    """LDM divides by the root of its own, larger heads; the queries make up for it."""
    channels = attention.to_q.out_features
    copies = len(outputs) // channels
    heads = in_heads(channels, attention.heads, copies)
    yield Part("to_q", attention.to_q, heads, reads, gain=sqrt(copies))
    yield Part("to_k", attention.to_k, heads, context)
    yield Part("to_v", attention.to_v, heads, context)
    yield Part("to_out.0", attention.to_out[0], outputs, heads)


def _vae_ends(half: Any, copies: int) -> Iterator[Part]:
    """The encoder or decoder without its levels."""
    first, last = whole(half.conv_in.out_channels) * copies, whole(half.conv_out.in_channels) * copies
    yield Part("conv_in", half.conv_in, first, whole(half.conv_in.in_channels))
    yield from under("mid.block_1", _vae_resnet(half.mid_block.resnets[0], copies))
    yield from under("mid.attn_1", _vae_attention(half.mid_block.attentions[0], copies))
    yield from under("mid.block_2", _vae_resnet(half.mid_block.resnets[1], copies))
    yield Part("norm_out", half.conv_norm_out, last)
    yield Part("conv_out", half.conv_out, whole(half.conv_out.out_channels), first_copies(last))


def _vae_level(block: Any, sampling: str, samplers: Any, copies: int) -> Iterator[Part]:
    for index, resnet in enumerate(block.resnets):
        yield from under(f"block.{index}", _vae_resnet(resnet, copies))
    for sampler in samplers or ():
        layout = whole(sampler.conv.out_channels) * copies
        yield Part(f"{sampling}.conv", sampler.conv, layout, first_copies(layout))


def _vae_resnet(resnet: Any, copies: int) -> Iterator[Part]:
    inputs, outputs = whole(resnet.in_channels) * copies, whole(resnet.out_channels) * copies
    yield Part("norm1", resnet.norm1, inputs)
    yield Part("conv1", resnet.conv1, outputs, first_copies(inputs))
    yield Part("norm2", resnet.norm2, outputs)
    yield Part("conv2", resnet.conv2, outputs, first_copies(outputs))
    if resnet.conv_shortcut is not None:
        yield Part("nin_shortcut", resnet.conv_shortcut, outputs, first_copies(inputs))


def _vae_attention(attention: Any, copies: int) -> Iterator[Part]:
    names = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    layout = whole(attention.to_q.out_features) * copies
    reads = first_copies(layout)
    yield Part("norm", attention.group_norm, layout)
    for part in _attention(attention, layout, reads, reads):
        yield part._replace(name=names[part.name])
