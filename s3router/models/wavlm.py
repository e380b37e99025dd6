"""WavLM's gated relative attention on torch's fused kernel.

transformers runs WavLM through `F.multi_head_attention_forward` with
`need_weights=True`: slow, a warning on every padded batch, and it refuses
cut heads. This subclass changes only the attention product; the gated
position bias and all weights stay those of the parent.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention


class FusedWavLMAttention(WavLMAttention):
    """WavLM attention through `scaled_dot_product_attention`.

    The projections are called as modules, so hooks, wrappers and masks on
    them all act.
    """

    def torch_multi_head_self_attention(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        gated_position_bias: Tensor,
    ) -> tuple[Tensor, None]:
        """Attend with the position bias added to the scores.

        Arguments
        ---------
        hidden_states : torch.Tensor, (B, T, D)
            Input of the attention.
        attention_mask : torch.Tensor, (B, T) bool, optional
            True for frames that may be attended to.
        gated_position_bias : torch.Tensor, (B * H, T, T)
            Added to the scaled scores.

        Returns
        -------
        hidden : torch.Tensor, (B, T, D)
            Attended and projected.
        weights : None
            The fused kernel does not give them.
        """
        batch, time, _ = hidden_states.shape

        def heads(projection: nn.Module) -> Tensor:
            shape = (batch, time, self.num_heads, -1)
            return projection(hidden_states).view(shape).transpose(1, 2)

        query, key = heads(self.q_proj), heads(self.k_proj)
        value = heads(self.v_proj)
        bias = gated_position_bias.view(batch, self.num_heads, time, time)
        bias = bias.to(query.dtype)
        if attention_mask is not None:
            padding = ~attention_mask[:, None, None, :]
            bias = bias.masked_fill(padding, float("-inf"))
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended = attended.transpose(1, 2).reshape(batch, time, -1)
        return self.out_proj(attended), None


class CutWavLMAttention(FusedWavLMAttention):
    """WavLM attention of which only some heads are left.

    The position bias is made by the first block for all others, which may
    have lost other heads. So it, and the gates on it, are those of all heads,
    and each block takes its own. `num_heads` counts the heads that are left.
    """

    kept_heads: Tensor
    all_heads: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        index: int = 0,
        **kwargs: object,
    ) -> tuple[Tensor, None, Tensor]:
        """Attend with the heads that are left.

        Arguments
        ---------
        hidden_states : torch.Tensor, (B, T, D)
            Input of the attention.
        attention_mask : torch.Tensor, (B, T) bool, optional
            True for frames that may be attended to.
        position_bias : torch.Tensor, (B * all heads, T, T), optional
            From the first block; made here if not given.
        index : int
            Of the block; the parent takes it, too.
        **kwargs : object
            Of transformers; not used.

        Returns
        -------
        hidden : torch.Tensor, (B, T, D)
            Attended and projected; (D,) if no head is left.
        weights : None
            The fused kernel does not give them.
        position_bias : torch.Tensor, (B * all heads, T, T)
            For the next block.
        """
        batch, time, _ = hidden_states.shape
        every = (batch, self.all_heads, time)
        if position_bias is None:
            bias = self.compute_bias(time, time).unsqueeze(0)
            bias = bias.repeat(batch, 1, 1, 1)
            position_bias = bias.view(batch * self.all_heads, time, time)
        if not self.num_heads:
            return self.out_proj(hidden_states), None, position_bias
        slices = hidden_states.view(batch, time, self.all_heads, -1)
        gates = self.gru_rel_pos_linear(slices.permute(0, 2, 1, 3))
        gates = torch.sigmoid(gates.view(*every, 2, 4).sum(-1))
        one, two = gates.chunk(2, dim=-1)
        gates = one * (two * self.gru_rel_pos_const - 1.0) + 2.0
        bias = position_bias.view(*every, time)
        gated = gates[:, self.kept_heads] * bias[:, self.kept_heads]
        hidden, _ = self.torch_multi_head_self_attention(
            hidden_states, attention_mask, gated
        )
        return hidden, None, position_bias


def cut_wavlm_heads(attention: WavLMAttention, kept: Tensor) -> None:
    """Let a WavLM attention use some of its heads only, in place.

    Its projections must be made smaller to fit.

    Arguments
    ---------
    attention : WavLMAttention
        With all its heads.
    kept : torch.Tensor
        int64, the heads that are left, ascending.
    """
    attention.__class__ = CutWavLMAttention
    attention.all_heads = attention.num_heads
    attention.num_heads = len(kept)
    attention.register_buffer("kept_heads", kept, persistent=False)


def is_wavlm_attention(module: nn.Module) -> bool:
    """Return whether a module is WavLM's attention.

    Arguments
    ---------
    module : torch.nn.Module
        `attention` of a transformer block.

    Returns
    -------
    bool
        Blocks with it take and return a position bias.
    """
    return isinstance(module, WavLMAttention)


def fuse_wavlm_attention(model: nn.Module) -> None:
    """Switch every WavLM attention of a model to the fused one, in place.

    The class is swapped and not the module, as torch's parametrize does:
    weights, names, hooks and deep copies stay as they are.

    Arguments
    ---------
    model : torch.nn.Module
        Any model; others than WavLM are left alone.
    """
    for module in model.modules():
        if type(module) is WavLMAttention:
            module.__class__ = FusedWavLMAttention
