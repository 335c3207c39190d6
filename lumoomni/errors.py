"""The two ways a user's run can end badly: bad input (exit 2) and a failed gate (exit 1)."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that says what to do."""


class GateFailure(RuntimeError):
    """A stage was measured and fell short; the message names the number and its threshold."""
