"""Makes untrusted text safe to show on a terminal."""

LENGTH_MAX = 2000


def printable(text: str, *, length_max: int = LENGTH_MAX) -> str:
    r"""Return *text* on one line, cut after *length_max* characters.

    Escape sequences, line breaks and characters that change the writing direction are shown as
    escapes such as ``\x1b``.
    """
    shown = text if len(text) <= length_max else f"{text[:length_max]}…"
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
