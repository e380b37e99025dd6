"""From config and weights to a running model: strict, float32, no dropout.

Every weight of the encoder must be there, in its shape; what else the file
holds (heads, quantizers, projections of the pre-training loss) is left out.
"""

from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from s3router.errors import FormatError, SettingError
from s3router.models.families import FAMILIES
from s3router.models.wavlm import fuse_wavlm_attention

# Our name of a dropout to the name in the config of every family.
DROPOUTS = MappingProxyType(
    {
        "dropout": "hidden_dropout",
        "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
        "projection_dropout": "feat_proj_dropout",
    }
)
MASK_EMBEDDING = "masked_spec_embed"


def build_model(
    config: PretrainedConfig,
    state: dict[str, Tensor],
    where: str,
    dropouts: dict[str, float] | None = None,
) -> nn.Module:
    """Build a Hugging Face base model that holds exactly these weights.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Of a known family. Changed: no layer drop, our dropouts, no masking
        of its own.
    state : dict of str to torch.Tensor
        Weights, with or without the family's prefix, heads allowed.
    where : str
        What the user calls the encoder, for errors.
    dropouts : dict of str to float, optional
        Probabilities by the names of `DROPOUTS`; 0 for those left out.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, all float32 on the CPU.

    Raises
    ------
    FormatError
        If weights are missing, of another shape, or more than the config
        says (as with a config of another size).
    SettingError
        If a dropout is not in [0, 1).
    """
    apply_policy(config, where, dropouts or {})
    # On the meta device no weight is allocated or drawn; the fork keeps the
    # few draws that remain from moving the caller's seed.
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = AutoModel.from_config(
                config,
                attn_implementation=FAMILIES[config.model_type].attention,
                dtype=torch.float32,
            )
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise FormatError(
            f"the config of {where} does not make a model: "
            f"{str(error).splitlines()[0]}"
        ) from error
    state = encoder_weights(model, state, where)
    model.load_state_dict(state, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    fuse_wavlm_attention(model)
    return model.eval()


def apply_policy(
    config: PretrainedConfig, where: str, dropouts: dict[str, float]
) -> None:
    """Set what our training needs in a config, whatever the file says.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Changed in place.
    where : str
        For errors.
    dropouts : dict of str to float
        Probabilities by the names of `DROPOUTS`.
    """
    if getattr(config, "add_adapter", False):
        raise FormatError(
            f"{where} has a convolutional adapter on top (add_adapter), which "
            f"shortens its output; s3router takes encoders without one"
        )
    for ours, theirs in DROPOUTS.items():
        probability = float(dropouts.get(ours, 0.0))
        if not 0.0 <= probability < 1.0:
            raise SettingError(
                f"{ours} is {probability}, but must be in [0, 1)"
            )
        setattr(config, theirs, probability)
    # A dropped layer leaves its scores without a gradient.
    config.layerdrop = 0.0
    config.apply_spec_augment = False
    # Some families create the mask embedding only if this is above 0.
    config.mask_time_prob = getattr(config, "mask_time_prob", 0.0) or 0.05


def encoder_weights(
    model: nn.Module, state: dict[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Pick, rename and check the weights of the encoder.

    Arguments
    ---------
    model : torch.nn.Module
        The base model; only names and shapes are looked at.
    state : dict of str to torch.Tensor
        Weights by any of the names that released files use.
    where : str
        For errors.

    Returns
    -------
    dict of str to torch.Tensor
        float32, one for each entry of `model.state_dict()`.
    """
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    prefix = FAMILIES[model.config.model_type].prefix + "."
    if any(name.startswith(prefix) for name in state):
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    state = modern_weight_norm(state)
    if MASK_EMBEDDING in wanted and MASK_EMBEDDING not in state:
        # Absent from files of models that were trained without masking.
        state[MASK_EMBEDDING] = torch.zeros(wanted[MASK_EMBEDDING])
    _check(wanted, state, where)
    return {name: state[name].float().contiguous() for name in wanted}


def modern_weight_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weight norm of the positional conv to torch's current names.

    Arguments
    ---------
    state : dict of str to torch.Tensor
        With `weight_g`, `weight_v` (older torch), or the plain `weight`
        (weight norm removed), or today's names.

    Returns
    -------
    dict of str to torch.Tensor
        A new mapping with today's names.
    """
    state = dict(state)
    conv = "encoder.pos_conv_embed.conv."
    modern = conv + "parametrizations.weight.original"
    for old, new in (("weight_g", "0"), ("weight_v", "1")):
        if conv + old in state:
            state[modern + new] = state.pop(conv + old)
    return state


def _check(
    wanted: dict[str, torch.Size], state: dict[str, Tensor], where: str
) -> None:
    """Raise one line that names the first bad weights."""
    missing = [name for name in wanted if name not in state]
    if missing:
        raise FormatError(
            f"{where} lacks {len(missing)} of the {len(wanted)} weights of the "
            f"encoder that its config describes: {_some(missing)}"
        )
    for name, shape in wanted.items():
        if state[name].shape != shape:
            raise FormatError(
                f"{where}: weight {name} has shape {tuple(state[name].shape)}, "
                f"but its config says {tuple(shape)}"
            )
    rooms = {name.split(".")[0] for name in wanted}
    surplus = [
        name
        for name in state
        if name not in wanted and name.split(".")[0] in rooms
    ]
    if surplus:
        raise FormatError(
            f"{where} has {len(surplus)} encoder weights that its config does "
            f"not describe: {_some(surplus)}"
        )


def _some(names: list[str]) -> str:
    """Return the first few names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
