"""The one exception for mistakes that the person at the keyboard can mend."""

from __future__ import annotations

from ames import DISTRIBUTION


class AmesError(ValueError):
    """Wrong input: one line that says what is wrong, where, and what to do.

    Commands print it without a traceback and exit with status 2; anything else that is raised is a
    defect of the library and keeps its traceback.
    """


def installing(extra: str) -> str:
    """The command that adds one of the optional parts to this library."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def first_line(error: object) -> str:
    """What another library raised, as part of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
