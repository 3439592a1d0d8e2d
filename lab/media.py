"""Generated media from which the time of each part can be read: their creation and their readers."""

from lab.readers import DecodedFrame, DecodedPip, read_frames, read_pips
from lab.screens import make_screen
from lab.sounds import make_audio
from lab.timecode import instant_code, second_code

__all__ = [
    "DecodedFrame",
    "DecodedPip",
    "instant_code",
    "make_audio",
    "make_screen",
    "read_frames",
    "read_pips",
    "second_code",
]
