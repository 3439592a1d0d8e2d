"""The configuration: one schema of all options, and the loader that turns muxer.cfg into frozen dataclasses."""

from muxer.config.load import ConfigReading, LoadedConfig, inspect_config, load_config
from muxer.config.schema import Config

__all__ = ["Config", "ConfigReading", "LoadedConfig", "inspect_config", "load_config"]
