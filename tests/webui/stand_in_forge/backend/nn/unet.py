"""U-Net blocks that add to their input in place."""

from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from backend.attention import attention_function


class InPlaceBlock(BasicTransformerBlock):
    """As Forge's block of the name that it inherits from."""

    def forward(self, x: Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None, **_: Any) -> Tensor:
        x += attended(self.attn1, self.norm1(x), None)
        x += attended(self.attn2, self.norm2(x), encoder_hidden_states)
        forwarded: Tensor = self.ff(self.norm3(x))
        forwarded += x
        return forwarded


def attended(attention: Any, x: Tensor, context: Tensor | None) -> Tensor:
    read = x if context is None else context
    gathered = attention_function(attention.to_q(x), attention.to_k(read), attention.to_v(read), attention.heads)
    out: Tensor = attention.to_out[0](gathered)
    return out


def made_in_place(unet: nn.Module) -> nn.Module:
    for part in unet.modules():
        if isinstance(part, BasicTransformerBlock):
            part.__class__ = InPlaceBlock
    return unet
