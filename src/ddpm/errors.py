"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """What is wrong, where, and what to do, in a sentence. The command line prints it and ends."""
