"""Errors for people: what was wrong, where, and what to do next.

Every error that s3router raises on purpose is an `S3RouterError`, and also the
built-in error that a caller would expect. The command line prints its text on
one line and exits with `exit_code`; anything else is a bug and keeps its
traceback.
"""

import difflib
import functools
import math
import sys
from collections.abc import Callable, Iterable


class S3RouterError(Exception):
    """Base of all errors that s3router raises on purpose."""

    exit_code = 2


class SettingError(S3RouterError, ValueError):
    """A setting (YAML key, option, argument) has a value that cannot work."""


class DataError(S3RouterError, ValueError):
    """A manifest, transcript or audio file is not what it should be."""


class NotFoundError(S3RouterError, FileNotFoundError):
    """A file, folder, model or language that was asked for does not exist."""

    # FileNotFoundError would print its errno form.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class FormatError(S3RouterError, ValueError):
    """A file is truncated, altered, or not of the format that it claims."""


class MismatchError(S3RouterError, ValueError):
    """Two parts do not belong together, as a mask and another encoder."""


class MissingDependencyError(S3RouterError, ImportError):
    """An optional package is needed; the text says which and how to get it."""


class VerificationError(S3RouterError, RuntimeError):
    """A result failed its own check and was therefore not written."""


def one_of(value: str, allowed: Iterable[str], what: str) -> str:
    """Return `value` if it is allowed; else raise with the near names.

    Arguments
    ---------
    value : str
        The name that was given.
    allowed : iterable of str
        The names that exist.
    what : str
        What the name is for, as in "scope" or "language".

    Returns
    -------
    str
        `value`, unchanged.

    Raises
    ------
    SettingError
        If `value` is not among `allowed`.

    Example
    -------
    >>> one_of("layer", ["layer", "global"], "scope")
    'layer'
    >>> one_of("globl", ["layer", "global"], "scope")
    Traceback (most recent call last):
    ...
    s3router.errors.SettingError: unknown scope 'globl': did you mean \
'global'? Known: layer, global
    """
    names = [str(name) for name in allowed]
    if value in names:
        return value
    raise SettingError(
        f"unknown {what} {value!r}: {near(str(value), names)}"
        f"Known: {', '.join(names)}"
    )


def near(value: str, names: Iterable[str]) -> str:
    """Return "did you mean 'x'? " for the names close to `value`, else ""."""
    close = difflib.get_close_matches(value, list(names), n=3, cutoff=0.6)
    if not close:
        return ""
    return "did you mean " + " or ".join(repr(n) for n in close) + "? "


def whole_number(setting: str, value: object, least: int = 1) -> int:
    """Return a setting that is a number of things, or say that it is none.

    Arguments
    ---------
    setting : str
        Its name.
    value : object
        What was given.
    least : int
        The smallest number that can be.

    Returns
    -------
    int
        `value`, unchanged.

    Raises
    ------
    SettingError
        If it is no whole number, or below `least`; 2.0 and True are none.

    Example
    -------
    >>> whole_number("refresh_every", 1.5)
    Traceback (most recent call last):
    ...
    s3router.errors.SettingError: refresh_every is 1.5, but must be a whole \
number, 1 or more
    """
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or value < least:
        raise SettingError(
            f"{setting} is {value!r}, but must be a whole number, "
            f"{least} or more"
        )
    return value


def positive_number(setting: str, value: object) -> float:
    """Return a setting that is a number above 0, or say that it is none.

    Arguments
    ---------
    setting : str
        Its name.
    value : object
        What was given.

    Returns
    -------
    float
        `value`, unchanged; an int too.

    Raises
    ------
    SettingError
        If it is no number, not above 0, infinite, or NaN.

    Example
    -------
    >>> positive_number("lr_head", "abc")
    Traceback (most recent call last):
    ...
    s3router.errors.SettingError: lr_head is 'abc', but must be a number above 0
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise SettingError(
            f"{setting} is {value!r}, but must be a number above 0"
        )
    return value


def flag(setting: str, value: object) -> bool:
    """Return a setting that is true or false, or say that it is neither.

    In YAML 1.2 `no` and `off` are texts, which Python takes for True.

    Arguments
    ---------
    setting : str
        Its name.
    value : object
        What was given.

    Returns
    -------
    bool
        `value`, unchanged.

    Raises
    ------
    SettingError
        If it is anything else, 0 and 1 included.

    Example
    -------
    >>> flag("frozen", "no")
    Traceback (most recent call last):
    ...
    s3router.errors.SettingError: frozen is 'no'; write true or false
    """
    if not isinstance(value, bool):
        raise SettingError(f"{setting} is {value!r}; write true or false")
    return value


def exit_on_error(
    command: Callable[[list[str]], None],
) -> Callable[[list[str]], None]:
    """Let a command end with one clear line and a non-zero exit.

    Arguments
    ---------
    command : callable
        Takes the command line's arguments.

    Returns
    -------
    callable
        The same command; where it raises an `S3RouterError`, the error's text
        is printed to standard error and the process exits with its
        `exit_code`. Other exceptions are bugs and pass through.
    """

    @functools.wraps(command)
    def wrapper(arguments: list[str]) -> None:
        try:
            command(arguments)
        except S3RouterError as error:
            print(f"s3router: error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    return wrapper
