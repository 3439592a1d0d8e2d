"""The configuration: one schema of all options, and the loader that turns muxer.cfg into frozen dataclasses."""

from muxer.config.load import LoadedConfig, ConfigReading, load_config, inspect_config
from muxer.config.schema import Config

__all__ = ["Config", "LoadedConfig", "ConfigReading", "load_config", "inspect_config"]
