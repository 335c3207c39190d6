"""The ways a user's run can end badly: bad input or a run that cannot go on (exit 2), a failed
gate (exit 1)."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that says what to do."""


class RunFailure(RuntimeError):
    """A run cannot go on, and what was asked for may be sound; one sentence says why, and what to
    do."""


class GateFailure(RuntimeError):
    """A stage was measured and fell short; the message names the number and its threshold."""
