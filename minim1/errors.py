"""Exceptions that are told in one sentence."""


class UserError(ValueError):
    """A mistake of the user, told in one sentence: the value, what was expected, the remedy.

    The command line prints the sentence and exits with code 2. Programming errors are never
    wrapped in this class: they propagate with their traceback.
    """


class Interrupted(UserError):
    """The user stopped a run with Ctrl-C; everything up to the last finished step is saved."""
