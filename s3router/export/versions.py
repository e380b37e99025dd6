"""Versions of what makes a graph, for the manifest of a bundle."""

from importlib.metadata import PackageNotFoundError, version

from s3router import __version__

_TOOLS = (
    *("torch", "onnx", "onnxscript", "transformers", "numpy"),
    *("onnxruntime", "onnxruntime-gpu"),
)


def tool_versions() -> dict[str, str]:
    """Return the versions of what is installed.

    Returns
    -------
    dict of str to str
        Package to version.
    """
    versions = {"s3router": __version__}
    for name in _TOOLS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
