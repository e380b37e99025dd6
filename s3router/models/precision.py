"""Which precision and which attention train fastest on a device."""

import torch
from transformers import PreTrainedModel


def bfloat16_is_fast(device: str | None = None) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware.

    Arguments
    ---------
    device : str or None
        As "cpu" or "cuda:0"; None: the GPU if there is one, else the CPU.

    Returns
    -------
    bool
        Emulation does not count.
    """
    cuda = torch.cuda.is_available()
    if cuda and (device is None or device.startswith("cuda")):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device is not None and not device.startswith("cpu"):
        return False
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(capability and capability())


def resolve_precision(wanted: str, device: str | None = None) -> str:
    """Return what "auto" stands for on a device; others unchanged.

    Arguments
    ---------
    wanted : str
        "auto", or a precision of SpeechBrain's.
    device : str or None
        As for `bfloat16_is_fast`.

    Returns
    -------
    str
        "bf16" where that is fast, else "fp32".
    """
    if wanted != "auto":
        return wanted
    return "bf16" if bfloat16_is_fast(device) else "fp32"


def choose_attention(
    model: PreTrainedModel, device: str, precision: str
) -> None:
    """Let an encoder take the attention that trains fastest.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Its attention is replaced where another one is faster: on a CPU in
        bf16 the fused one's backward takes four times as long as the plain
        one's. Values differ by rounding.
    device, precision : str
        Of training.
    """
    if device.startswith("cpu") and precision == "bf16":
        model.set_attn_implementation("eager")
