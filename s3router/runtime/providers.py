"""Which of onnxruntime's execution providers can be used here.

onnxruntime lists the providers that it was compiled with, not those that work
on this machine, and prints errors when one is asked for in vain. So the device
is looked for first. No session is opened here.
"""

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

from s3router.errors import MissingDependencyError, SettingError, one_of

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_SHORT = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


def choose_providers(
    providers: Sequence[str] | str | None = None,
) -> list[str]:
    """Return the execution providers to ask onnxruntime for.

    Arguments
    ---------
    providers : sequence of str or str, optional
        As for `open_session`. A str may hold several, with commas.

    Returns
    -------
    list of str
        onnxruntime's names, best first.

    Raises
    ------
    SettingError
        If a provider is unknown, or none of those asked for is usable here.

    Example
    -------
    >>> choose_providers("cpu")
    ['CPUExecutionProvider']
    """
    if not providers:
        # TensorRT is never chosen: it builds for minutes at each new length.
        return [CUDA, CPU] if cuda_is_usable() else [CPU]
    if isinstance(providers, str):
        providers = providers.split(",")
    compiled = import_onnxruntime().get_available_providers()
    names = [_SHORT.get(p.strip().lower(), p.strip()) for p in providers]
    for name in names:
        one_of(name, [*_SHORT.values(), *compiled], "provider")
    usable = [n for n in names if n in compiled and _has_device(n)]
    if not usable:
        raise SettingError(
            f"the provider {names[0]} is not usable here. {why_not(names[0])}"
        )
    return usable


def cuda_is_usable() -> bool:
    """Return whether onnxruntime has CUDA and the driver finds a device.

    Asks the driver itself, in microseconds where there is none, because
    onnxruntime prints errors when CUDA is asked for in vain.
    """
    return CUDA in import_onnxruntime().get_available_providers() and (
        count_cuda_devices() > 0
    )


def count_cuda_devices() -> int:
    """Return how many CUDA devices the driver shows; 0 without a driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0:
            return 0
        if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def import_onnxruntime() -> Any:
    """Return the onnxruntime module, or say how to get it.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or its installation is broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"running a bundle needs onnxruntime ({error}): pip install "
            f"onnxruntime, or, for CUDA, pip install onnxruntime-gpu (never "
            f"both)"
        ) from error
    if not hasattr(onnxruntime, "get_available_providers"):
        raise MissingDependencyError(
            "the installed onnxruntime is broken, as happens when both "
            "onnxruntime and onnxruntime-gpu were installed: uninstall both, "
            "then install one of them"
        )
    return onnxruntime


def _has_device(provider: str) -> bool:
    """Return whether a provider has what it runs on."""
    if provider in (CUDA, TENSORRT):
        return count_cuda_devices() > 0
    return True


def why_not(provider: str) -> str:
    """Return one sentence on why a provider does not work here."""
    compiled = import_onnxruntime().get_available_providers()
    if provider not in compiled:
        return f"The installed onnxruntime has only {', '.join(compiled)}" + (
            "; CUDA comes with onnxruntime-gpu" if provider == CUDA else ""
        )
    if not _has_device(provider):
        return "There is no NVIDIA device or driver; use cpu"
    return (
        "The libraries of CUDA and cuDNN that this onnxruntime wants are "
        "missing: pip install 'onnxruntime-gpu[cuda,cudnn]', or use cpu"
    )
