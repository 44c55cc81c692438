"""The one exception for mistakes that the user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ames import DISTRIBUTION


class AmesError(ValueError):
    """Wrong input: one line that says what is wrong, where, and what to do.

    Commands print it without a traceback and exit with status 2; anything else that is raised is a
    defect of the library and keeps its traceback.
    """


def installing(extra: str) -> str:
    """Return the command that installs an optional part of this library."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class NotFiniteError(AmesError):
    """An image's local descriptors hold NaN or infinity. ``image``: its number among those given."""

    def __init__(self, image: int, name: str | None = None) -> None:
        self.image = image
        super().__init__(
            f"{name or f'the descriptors of image {image}'} hold values that are not finite (NaN or "
            "infinity); extract them again"
        )


@contextmanager
def naming(
    name: Callable[[int], str] | None = None, place: Callable[[int], int] = lambda image: image
) -> Iterator[None]:
    """Raise a NotFiniteError of the block again with the caller's number and name of the image.

    place: from a number in the block to the caller's; name: from that to "x.hdf5: image 3".
    """
    try:
        yield
    except NotFiniteError as error:
        image = place(error.image)
        raise NotFiniteError(image, None if name is None else name(image)) from error


def unknown(what: str, name: str, known: Iterable[str], *, hint: str | None = None) -> str:
    """The message about a name that does not exist: the nearest ones if there are any, else all of them.

    hint: what else to do.
    """
    names = list(known)
    near, text = difflib.get_close_matches(name, names, n=3), f"{what} {name!r} does not exist; "
    if near:
        asked = f"{text}did you mean {' or '.join(near)}?"
        return asked if hint is None else f"{asked} {hint[0].upper()}{hint[1:]}"
    return f"{text}choose one of {', '.join(names)}" + ("" if hint is None else f"; {hint}")


def first_line(error: object) -> str:
    """Return what another library raised, as part of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
