"""Text from elsewhere, made safe to show on a terminal."""

LONGEST = 2000


def printable(text: str, *, longest: int = LONGEST) -> str:
    r"""Return *text* on one line of at most about *longest* characters.

    Escape sequences, line ends and characters that change the direction of writing are shown as
    ``\x1b`` and the like, so they do nothing.
    """
    shown = text if len(text) <= longest else f"{text[:longest]}…"
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
