"""What wav2vec 2.0 puts around the encoder: quantiser, projections, loss.

Baevski et al., 2020, sections 2 and 3.2. The targets are quantised features of
the frozen front end, so the penalty on its activations is not needed.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from s3router.errors import SettingError
from s3router.models.pretrain_head import MaskedEncoder


class Quantised(NamedTuple):
    """Quantised frames.

    `vectors` (frames, width); `codes` (frames, codebooks) int64, the entries
    that were chosen; `shares` (codebooks, codes), how likely each entry is on
    average, without noise and temperature.
    """

    vectors: torch.Tensor
    codes: torch.Tensor
    shares: torch.Tensor


class ProductQuantiser(nn.Module):
    """Chooses an entry of each codebook; straight-through Gumbel softmax.

    Arguments
    ---------
    channels : int
        Of the features.
    codebooks, codes : int
        How many codebooks, and entries of each.
    width : int
        Of a quantised frame; `codebooks` divides it.

    Raises
    ------
    SettingError
        If it does not.
    """

    def __init__(
        self, channels: int, codebooks: int, codes: int, width: int
    ) -> None:
        super().__init__()
        if width % codebooks:
            raise SettingError(
                f"contrastive: {codebooks} codebooks cannot share a width of "
                f"{width}: it must be a multiple"
            )
        self.choice = nn.Linear(channels, codebooks * codes)
        self.entries = nn.Parameter(
            torch.rand(codebooks, codes, width // codebooks)
        )
        # As the paper's own code starts it: the first choices are those of a
        # random projection, sharp and different for different frames.
        nn.init.normal_(self.choice.weight)
        nn.init.zeros_(self.choice.bias)

    def forward(
        self,
        features: torch.Tensor,
        temperature: float = 1.0,
        noise: torch.Tensor | None = None,
    ) -> Quantised:
        """Quantise frames.

        Arguments
        ---------
        features : torch.Tensor
            (frames, channels).
        temperature : float
            Of the Gumbel softmax.
        noise : torch.Tensor or None
            (frames, codebooks, codes) of Gumbel noise; None: the likeliest
            entry is taken, as in validation.

        Returns
        -------
        Quantised
            float32.
        """
        books, codes, _ = self.entries.shape
        features = features.to(self.entries.dtype)
        normal = functional.layer_norm(features, features.shape[-1:])
        # In full precision, so that the choice is that of the weights.
        with torch.autocast(features.device.type, enabled=False):
            logits = self.choice(normal).unflatten(-1, (books, codes))
        soft = logits if noise is None else (logits + noise) / temperature
        soft = soft.softmax(-1)
        chosen = soft.argmax(-1)
        hard = functional.one_hot(chosen, codes).to(soft.dtype)
        weights = hard if noise is None else hard - soft.detach() + soft
        vectors = torch.einsum("fbc,bcw->fbw", weights, self.entries)
        shares = logits.softmax(-1).mean(0)
        return Quantised(vectors.flatten(1), chosen, shares)


class ContrastivePredictor(MaskedEncoder):
    """Encoder on features of its frozen front end, quantiser, projections.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        All but its front end trains.
    codebooks, codes, width : int
        See `ProductQuantiser`; contexts are compared in `width` too.
    """

    def __init__(
        self, encoder: PreTrainedModel, codebooks: int, codes: int, width: int
    ) -> None:
        super().__init__(encoder)
        config = encoder.config
        self.quantiser = ProductQuantiser(
            config.conv_dim[-1], codebooks, codes, width
        )
        self.project_target = nn.Linear(width, width)
        self.project_context = nn.Linear(config.hidden_size, width)

    def forward(
        self,
        features: torch.Tensor,
        frames: torch.Tensor,
        hidden: torch.Tensor,
        chosen: torch.Tensor,
        targets: torch.Tensor,
        temperature: float = 1.0,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, Quantised]:
        """Return contexts and quantised targets of the hidden frames.

        Arguments
        ---------
        features : torch.Tensor
            (batch, frames, channels) output of the front end.
        frames : torch.Tensor
            (batch,) int64, valid frames.
        hidden : torch.Tensor
            (batch, frames) bool, what the encoder does not see.
        chosen : torch.Tensor
            (targets,) int64, the hidden frames in the flattened batch.
        targets : torch.Tensor
            (targets, channels) clean features of them.
        temperature, noise
            See `ProductQuantiser`.

        Returns
        -------
        contexts : torch.Tensor
            (targets, width).
        candidates : torch.Tensor
            (targets, width), projected.
        quantised : Quantised
            Before the projection.
        """
        states = self.states(features, frames, hidden).flatten(0, 1)
        quantised = self.quantiser(targets, temperature, noise)
        return (
            self.project_context(states[chosen]),
            self.project_target(quantised.vectors),
            quantised,
        )


class ContrastiveLoss(NamedTuple):
    """Parts of the loss, and what a learning curve shows.

    `contrast` mean over frames, `diversity` 0 (all entries alike) to 1;
    `right` frames whose target was told from all distractors, `counted`
    frames that had one or more, `chance` how many of them guessing gets,
    `perplexity` how many entries are in use, all codebooks together.
    """

    contrast: torch.Tensor
    diversity: torch.Tensor
    right: torch.Tensor
    counted: torch.Tensor
    chance: torch.Tensor
    perplexity: torch.Tensor


def contrastive_loss(
    contexts: torch.Tensor,
    candidates: torch.Tensor,
    quantised: Quantised,
    distractors: torch.Tensor,
    temperature: float,
) -> ContrastiveLoss:
    """Tell each frame's target from other hidden frames of its clip.

    Equations 3 and 4 of wav2vec 2.0; diversity in the form of its footnote,
    (GV - sum of the codebooks' perplexities) / GV. A distractor with the codes
    of the target is left out, as in the paper's own code.

    Arguments
    ---------
    contexts, candidates : torch.Tensor
        (frames, width) each.
    quantised : Quantised
        Of the same frames.
    distractors : torch.Tensor
        (frames, distractors) int64, rows of `candidates`; -1: none.
    temperature : float
        Of the similarities.

    Returns
    -------
    ContrastiveLoss
        Differentiable in its first two parts.
    """
    # In full precision: a cosine in bfloat16 has three digits.
    with torch.autocast(contexts.device.type, enabled=False):
        contexts = functional.normalize(contexts.float(), dim=-1)
        candidates = functional.normalize(candidates.float(), dim=-1)
        similar = contexts @ candidates.T / temperature
    own = torch.arange(len(similar), device=similar.device).unsqueeze(1)
    rows = torch.cat([own, distractors.clamp(min=0)], dim=1)
    same = (quantised.codes[rows[:, 1:]] == quantised.codes[own]).all(-1)
    out = same | (distractors < 0)
    logits = similar.gather(1, rows)
    others = logits[:, 1:].masked_fill(out, -torch.inf)
    logits = torch.cat([logits[:, :1], others], dim=1)
    zeros = torch.zeros_like(own[:, 0])
    shares = quantised.shares
    uses = torch.exp(-torch.xlogy(shares, shares).sum(-1)).sum()
    left = (~out).sum(1)
    best = others.detach().amax(1)
    return ContrastiveLoss(
        contrast=functional.cross_entropy(logits, zeros),
        diversity=(shares.numel() - uses) / shares.numel(),
        right=((logits[:, 0] > best) & (left > 0)).sum(),
        counted=(left > 0).sum(),
        chance=torch.where(left > 0, 1 / (1 + left), 0.0).sum(),
        perplexity=uses.detach(),
    )


def gumbel_noise(
    shape: tuple[int, ...], seed: int, device: torch.device | str
) -> torch.Tensor:
    """Return Gumbel noise that depends on its seed alone.

    Arguments
    ---------
    shape : tuple of int
        Its size.
    seed : int
        So that a resumed run draws what an uninterrupted one does.
    device : torch.device or str
        Where; another kind of device draws other noise.

    Returns
    -------
    torch.Tensor
        float32.
    """
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.empty(shape, device=device)
    return -noise.exponential_(generator=generator).log()
