"""What packing a bundle came to: bytes, beside what they are measured by.

Two yardsticks: the entropy bound n H(d) of masks whose bits are independent,
summed over layers of n weights and density d; and a LoRA adapter of rank 8 in
float16 on the same layers, which is what one would send without masks.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

LORA_RANK = 8
_HALF = 2


def report(
    bundle: Any,
    header: Mapping[str, Any],
    layers: Mapping[str, Any],
    masks: Mapping[str, Mapping[str | None, Any]],
    size: int,
) -> dict[str, Any]:
    """Return the numbers of a packed bundle.

    Arguments
    ---------
    bundle : Bundle
        What was packed.
    header : mapping
        Of the file.
    layers : mapping
        By name, as of `find_masks`.
    masks : mapping
        By layer and graph, as of `code_masks`.
    size : int
        Bytes of the file.

    Returns
    -------
    dict
        "bytes" and "installed" of all; "consensus": bytes sent once for all
        languages; "left_out": names of files; "languages": by code "bytes"
        (all that only this language needs), of these "masks", "installed",
        "bound" (entropy, 0 without masks), "of_bound" (masks / bound, with a
        share of the consensus), "lora" and "references".
    """
    entries = [*header["plain"], *header["graphs"]]
    sent = {entry["name"]: _sent(entry) for entry in entries}
    consensus = [each[None] for each in masks.values() if None in each]
    shared = sum(coded.bytes for coded in consensus)
    coded_of = {
        code: [e[entry.model] for e in masks.values() if entry.model in e]
        for code, entry in bundle.languages.items()
    }
    # Languages without masks have no use for it.
    users = sum(map(bool, coded_of.values()))
    languages = {}
    for code, entry in bundle.languages.items():
        own, coded = bundle.own_files(code), coded_of[code]
        bound = sum(each.bound for each in coded)
        sizes = sum(each.bytes for each in coded)
        share = shared / users if coded else 0
        languages[code] = {
            "bytes": sum(sent[name] for name in own),
            "masks": sizes,
            "installed": sum(bundle.files[name]["bytes"] for name in own),
            "bound": math.ceil(bound),
            "of_bound": (sizes + share) / bound if bound else None,
            "lora": _lora(layers, entry.model),
            "references": dict(Counter(each.reference for each in coded)),
        }
    return {
        "bytes": size,
        "installed": sum(entry["bytes"] for entry in entries),
        "consensus": shared,
        "left_out": [e["name"] for e in header["plain"] if "parts" not in e],
        "languages": languages,
    }


def _sent(entry: Mapping[str, Any]) -> int:
    """Return the bytes of a file's frames."""
    frames = 0
    for part in entry.get("parts", ()):
        streams = part.get("streams", [])
        frames += sum(stored for _, stored, _ in streams)
        frames += part["frame"][0] if "frame" in part else 0
    return frames


def _lora(layers: Mapping[str, Any], graph: str) -> int | None:
    """Return the bytes of an adapter; None if a shape is not known."""
    shapes = [each.shape for each in layers.values() if graph in each.spans]
    if not shapes or any(len(shape) != 2 for shape in shapes):
        return None
    return sum(LORA_RANK * sum(shape) * _HALF for shape in shapes)


def format_report(numbers: Mapping[str, Any]) -> str:
    """Return the table of `report` for people.

    Arguments
    ---------
    numbers : mapping
        Of `report`.

    Returns
    -------
    str
        Lines without a newline at the end.

    Example
    -------
    >>> row = {"bytes": 5_200_000, "masks": 5_000_000, "bound": 4_900_000}
    >>> row |= {"of_bound": 1.02, "lora": None, "installed": 12_000_000}
    >>> row["references"] = {"none": 72}
    >>> print(format_report({"languages": {"es": row}, "consensus": 0}))
    language  sent kB  masks kB  n*H(d) kB  of bound  LoRA r=8 kB  installed kB\
  masks against
    es         5200.0    5000.0     4900.0     1.020            -       12000.0\
  none 72
    """
    head = ["language", "sent kB", "masks kB", "n*H(d) kB", "of bound"] + [
        f"LoRA r={LORA_RANK} kB",
        "installed kB",
        "masks against",
    ]
    rows = [head]
    for code, row in numbers["languages"].items():
        of_bound = row["of_bound"]
        against = (f"{k} {n}" for k, n in sorted(row["references"].items()))
        rows.append(
            [
                code,
                *(_kilo(row[key]) for key in ("bytes", "masks", "bound")),
                "-" if of_bound is None else f"{of_bound:.3f}",
                *(_kilo(row[key]) for key in ("lora", "installed")),
                ", ".join(against) or "-",
            ]
        )
    if numbers["consensus"]:
        kilo = _kilo(numbers["consensus"])
        rows.append(["consensus", kilo, kilo, *"-----"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _kilo(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e3:.1f}"


def _line(row: list[str], widths: list[int]) -> str:
    first, *middle, last = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1])]
    cells += [text.rjust(width) for text, width in middle]
    return "  ".join([*cells, last[0]])
