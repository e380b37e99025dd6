"""What both benchmarks need: a clock, the machine's name, a JSON file."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from s3router.runtime.cores import usable_cores


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the time of one call.

    On the CPU the processor time of this process, which other work on the
    machine disturbs least; on CUDA the wall time until the device is done.
    """
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def summary(times: list[float]) -> dict[str, object]:
    """Return median, mean, minimum and all times, in seconds."""
    return {
        "mean": round(statistics.mean(times), 6),
        "median": round(statistics.median(times), 6),
        "minimum": round(min(times), 6),
        "all": [round(value, 6) for value in times],
    }


def machine(device: str) -> dict[str, object]:
    """Return what the numbers depend on."""
    return {
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1] for line in lines if "model name" in line]
    return names[0].strip() if names else platform.processor()


def pick_device(name: str) -> str:
    """Return `cpu` or `cuda`; `auto` takes CUDA where there is one."""
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise SystemExit("train_step: no CUDA device is usable here")
    return ("cuda" if usable else "cpu") if name == "auto" else name


def write(path: Path, result: dict[str, object]) -> None:
    """Write the result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {path}")
