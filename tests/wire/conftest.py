"""Properties are judged by their outcome, not by how busy the machine is while they run."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
