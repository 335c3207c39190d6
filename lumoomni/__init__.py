"""LumoOmni: a text-only language model that learns to see, hear and speak, stage by stage."""

__version__ = "0.1.0"
