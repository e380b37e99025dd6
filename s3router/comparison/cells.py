"""A row of a comparison: a method under one combination of settings."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """A method under one combination of settings: a row of the table.

    Arguments
    ---------
    method : str
        Its name in the comparison.
    yaml : str
        Its YAML.
    shared : dict
        The combination of `each` and `together`: cells with the same one are
        compared.
    own : dict
        The combination of the method's own lists.
    fixed : dict
        What does not vary: `common`, and the method's plain settings.
    search : dict
        One setting, as a learning rate, to its values; dev chooses.
    seeds : tuple of int
        The first one searches.
    starts : dict
        A setting, as `start_weights`, to the cell whose subnetworks, of the
        same seed, are its values.
    """

    method: str
    yaml: str
    shared: dict[str, object] = field(hash=False)
    own: dict[str, object] = field(hash=False)
    fixed: dict[str, object] = field(hash=False)
    search: dict[str, list] = field(hash=False)
    seeds: tuple[int, ...]
    starts: dict[str, "Cell"] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """A path of folders that no other cell has."""
        settings = [word(value) for value in self.shared.values()]
        variant = [f"{k}-{word(v)}" for k, v in self.own.items()]
        return "/".join([*settings, "_".join([self.method, *variant])])

    def candidates(self) -> list[dict[str, object]]:
        """Return the settings that dev chooses from; at least one."""
        names = list(self.search)
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*self.search.values())
        ]

    def settings(self, chosen: Mapping[str, object], seed: int) -> dict:
        """Return what a run is given beside its YAML and its folders."""
        return {
            **self.fixed,
            **self.shared,
            **self.own,
            **chosen,
            "seed": seed,
        }


def word(value: object) -> str:
    """Return a value as a part of a folder's name, without `=`.

    SpeechBrain's command line would take that for the end of a key.

    Example
    -------
    >>> word(0.002), word("2:4"), word(None)
    ('0.002', '2-4', 'None')
    """
    return re.sub(r"[^\w.-]+", "-", str(value)).strip("-") or "none"
