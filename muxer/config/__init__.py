"""The configuration: one schema of all options, and the loader that turns muxer.cfg into frozen dataclasses."""

from muxer.config.load import Loaded, Reading, load, read
from muxer.config.schema import Config

__all__ = ["Config", "Loaded", "Reading", "load", "read"]
