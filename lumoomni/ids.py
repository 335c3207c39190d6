"""The reserved ids that every layer agrees on: feature placeholders and the ignored label.

They are negative, so that no vocabulary can collide with them and no text can spell them.
"""

IMAGE_PATCH = -1
AUDIO_FRAME = -2
IGNORE = -100
NO_NUMBER = -100
"""Where a position belongs to no numbered picture."""
