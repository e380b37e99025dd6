"""What a folder is: subnetwork, bundle or encoder. For `s3router info`.

Needs no torch. Reads strictly: a folder that is damaged is not described.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3router.errors import FormatError, NotFoundError
from s3router.formats.bundle import MANIFEST, Bundle
from s3router.formats.encoder_folder import describe_encoder
from s3router.formats.files import folder_sizes, read_json
from s3router.formats.subnetwork import CONFIG, Subnetwork

EMBEDDED = "tiny"
_KINDS = (
    f"a subnetwork ({CONFIG} and mask.safetensors), a bundle ({MANIFEST}), "
    f"an encoder folder ({CONFIG} and model.safetensors), or '{EMBEDDED}'"
)


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """Say what a folder is and what is in it.

    Arguments
    ---------
    path : str or path
        A subnetwork, a bundle, an encoder folder, or "tiny" for the encoder
        that is embedded in this package.

    Returns
    -------
    dict
        Ready for JSON; "kind" is "subnetwork", "bundle" or "encoder".

    Raises
    ------
    NotFoundError
        If there is nothing at `path`.
    FormatError
        If it is none of these, or damaged.
    """
    folder = Path(path)
    if str(path) == EMBEDDED and not folder.exists():
        folder = Path(__file__).parents[1] / "assets" / EMBEDDED
    if not folder.exists():
        raise NotFoundError(f"no such file or folder: {folder}")
    if (folder / MANIFEST).is_file():
        return describe_bundle(folder)
    if (folder / CONFIG).is_file():
        config = read_json(folder / CONFIG)
        if isinstance(config, dict) and "format_version" in config:
            return describe_subnetwork(folder)
        if isinstance(config, dict) and "model_type" in config:
            return describe_encoder(folder)
    raise FormatError(f"{folder} is nothing that s3router knows: {_KINDS}")


def describe_subnetwork(folder: str | os.PathLike) -> dict[str, Any]:
    """Describe a subnetwork folder; see `describe`."""
    loaded = Subnetwork.load(folder)
    config = loaded.config
    counts = loaded.sparsity_by_tensor()
    names = (
        "language task method targets scope pattern sparsity encoder "
        "fingerprint sample_rate normalize unit head"
    ).split()
    return {
        "kind": "subnetwork",
        "path": str(folder),
        **{name: config.get(name) for name in names},
        "measured_sparsity": loaded.sparsity(),
        "maskable_weights": sum(total for _, total in counts.values()),
        "removed_weights": sum(removed for removed, _ in counts.values()),
        "tuned_weights": sum(w.size for w in loaded.weights.values()),
        "tokens": len(loaded.tokens),
        "sparsity_by_layer": by_layer(counts),
        "sparsity_by_tensor": {
            name: {"removed": removed, "total": total}
            for name, (removed, total) in counts.items()
        },
        "files": folder_sizes(folder),
        "bytes": sum(folder_sizes(folder).values()),
        "versions": config.get("versions", {}),
    }


def describe_bundle(folder: str | os.PathLike) -> dict[str, Any]:
    """Describe a bundle folder, after checking its files; see `describe`."""
    bundle = Bundle.load(folder)
    bundle.verify()
    return {
        "kind": "bundle",
        "path": str(folder),
        "layout": bundle.layout,
        "precision": bundle.precision,
        "profile": bundle.profile,
        "encoder": bundle.encoder.get("name"),
        "family": bundle.encoder.get("family"),
        "fingerprint": bundle.encoder.get("fingerprint"),
        "sample_rate": bundle.sample_rate,
        "normalize": bundle.normalize,
        "languages": {
            code: {
                "task": entry.task,
                "method": entry.method,
                "form": entry.details.get("form", ""),
                "sparsity": entry.sparsity,
                "zeros": entry.zeros,
                "unit": entry.unit,
                "bytes": sum(
                    bundle.files[name]["bytes"]
                    for name in bundle.own_files(code)
                ),
                "max_error": bundle.parity.get(code, {}).get("max_error"),
            }
            for code, entry in bundle.languages.items()
        },
        "bytes": sum(folder_sizes(folder).values()),
        "versions": bundle.created_by,
    }


def by_layer(
    counts: Mapping[str, tuple[int, int]],
) -> dict[str, dict[str, float]]:
    """Return the sparsity of each transformer layer and of its parts.

    Arguments
    ---------
    counts : mapping of str to tuple of int
        Tensor name to (removed, total).

    Returns
    -------
    dict
        Layer name to {"attention", "feed_forward", "all"}, shares removed;
        what belongs to no layer stands under its own name.

    Example
    -------
    >>> by_layer({"encoder.layers.0.attention.q_proj": (1, 4)})
    {'encoder.layers.0': {'attention': 0.25, 'all': 0.25}}
    """
    sums: dict[str, dict[str, list[int]]] = {}
    for name, (removed, total) in counts.items():
        match = re.match(r"(.*\.\d+)\.(attention|feed_forward)\.", name)
        layer, parts = (
            (match[1], [match[2], "all"]) if match else (name, ["all"])
        )
        for part in parts:
            cell = sums.setdefault(layer, {}).setdefault(part, [0, 0])
            cell[0] += removed
            cell[1] += total
    order = ("attention", "feed_forward", "all")
    return {
        layer: {p: cells[p][0] / cells[p][1] for p in order if p in cells}
        for layer, cells in sums.items()
    }


def format_description(info: Mapping[str, Any]) -> str:
    """Return a description as text for a terminal.

    Arguments
    ---------
    info : mapping
        From `describe`.

    Returns
    -------
    str
        A line for each fact, then a table of layers or languages.

    Example
    -------
    >>> print(format_description({"kind": "encoder", "bytes": 2_000_000}))
    kind   encoder
    bytes  2.0 MB
    """
    tables = ("languages", "sparsity_by_layer")
    lines = []
    for key, value in info.items():
        if key in (*tables, "sparsity_by_tensor", "files") or value in (
            None,
            {},
            [],
            "",
        ):
            continue
        lines.append((key.replace("_", " "), _plain(key, value)))
    width = max(len(key) for key, _ in lines)
    text = [f"{key:<{width}}  {value}" for key, value in lines]
    for table in tables:
        if info.get(table):
            text += ["", *_table(table, info[table])]
    return "\n".join(text)


def _plain(key: str, value: Any) -> str:
    """Return one value as people write it."""
    if key == "bytes":
        return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value} B"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith(("weights", "zeros")):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1e}" if "error" in key else f"{value:.2%}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain('', v)}" for k, v in value.items() if v)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _table(name: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table with one row for each entry."""
    head = "language" if name == "languages" else "sparsity of"
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    cells = [[head, *(c.replace("_", " ") for c in columns)]]
    for key, row in rows.items():
        values = [row.get(c) for c in columns]
        cells.append(
            [
                key,
                *(
                    "-" if v is None else _plain(c, v)
                    for c, v in zip(columns, values, strict=True)
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [f"{c:<{w}}" for c, w in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines
