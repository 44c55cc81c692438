"""The one exception for mistakes that the person at the keyboard can mend."""


class AmesError(ValueError):
    """Wrong input: one line that says what is wrong, where, and what to do.

    Commands print it without a traceback and exit with status 2; anything else that is raised is a
    defect of the library and keeps its traceback.
    """


def first_line(error: object) -> str:
    """What another library raised, as part of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
