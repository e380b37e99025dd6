"""What may be asked for: a pattern of zeros, and a share of them.

Checks and counts only; must not touch a tensor.
"""

import re
from dataclasses import dataclass

from s3router.errors import SettingError

LARGEST_GROUP = 64
#: How scores become a mask, see `s3router.masks.select`.
RULES = ("top", "positive")


@dataclass(frozen=True)
class Pattern:
    """Where zeros may be: anywhere, n of m, or in whole units.

    Arguments
    ---------
    kind : str
        `unstructured`, `n:m` or `structured`.
    n, m : int
        For `n:m`: entries kept and entries in a group along the input.
    """

    kind: str
    n: int = 0
    m: int = 0

    @property
    def sparsity(self) -> float | None:
        """The share removed that the pattern itself fixes, if it does."""
        return 1 - self.n / self.m if self.kind == "n:m" else None

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read `unstructured`, `structured` or, as an example, `2:4`.

        Example
        -------
        >>> Pattern.parse("2:4")
        Pattern(kind='n:m', n=2, m=4)
        """
        if text in ("unstructured", "structured"):
            return cls(text)
        match = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not match:
            raise SettingError(
                f"unknown pattern {text!r}: use unstructured, structured, or "
                "n:m as in '2:4' (in YAML with quotes)"
            )
        n, m = int(match[1]), int(match[2])
        if not 0 < n < m <= LARGEST_GROUP:
            raise SettingError(
                f"pattern {text!r}: n:m keeps n of m weights, so it needs "
                f"0 < n < m <= {LARGEST_GROUP}"
            )
        return cls("n:m", n, m)


def check_rule(rule: str, pattern: Pattern, scope: str) -> None:
    """Raise SettingError where a rule does not go with the other settings.

    Arguments
    ---------
    rule : str
        Of `RULES`.
    pattern : Pattern
        Where zeros may be.
    scope : str
        `layer` or `global`.
    """
    if rule == "positive" and (
        pattern.kind != "unstructured" or scope != "layer"
    ):
        raise SettingError(
            "rule positive: every score decides for its own weight; it needs "
            "pattern unstructured and scope layer"
        )


def removed_count(sparsity: float, total: int) -> int:
    """Return how many of `total` entries a sparsity removes.

    The original takes the integer part of `(1 - density) * total`, which
    loses an entry whenever the product falls short by rounding.

    Arguments
    ---------
    sparsity : float
        Share removed, in [0, 1).
    total : int
        Entries there are.

    Returns
    -------
    int
        The count.

    Raises
    ------
    SettingError
        If `sparsity` is not in [0, 1).

    Example
    -------
    >>> int((1 - 0.9) * 1000), removed_count(0.1, 1000)
    (99, 100)
    """
    check_sparsity(sparsity)
    return round(sparsity * total)


def check_sparsity(value: object, where: str = "sparsity") -> float:
    """Return a sparsity as a float, or raise SettingError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 1:
        raise SettingError(
            f"{where}: {value!r} is not in [0, 1); it is the share of weights "
            "that is removed, so 0.1 keeps 90%"
        )
    return float(value)
