"""Holds a muxed file against its plan. That ffmpeg ended well proves nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from muxer.errors import MediaError
from muxer.media.cut import NEAR
from muxer.media.probe import Audio, Probed, need_audio, need_video
from muxer.media.render import Piece, Target, Tools, decode_command
from muxer.process import Runner

# Lossy audio ends at a packet's border; no packet of a playable codec is longer.
AUDIO_PACKET = 150_000
DECODED_AT_ONCE = 8
DECODE_SECONDS = 300.0


def check_plan(made: Probed, target: Target, parts: Sequence[Piece], audio: Audio, length: int) -> None:
    """Given the probed result, the target, the pieces, the call's audio stream and the planned length in microseconds,
    return when it is as planned. Raise :class:`MediaError` that says in what it differs."""
    video, sound = need_video(made), need_audio(made)
    if video.codec != "h264" or video.size != (target.width, target.height):
        raise MediaError(f"the video is {video.codec} {video.size} and not h264 {target.width}x{target.height}")
    if sound.entry.get("channels") != audio.entry.get("channels"):
        raise MediaError(f"the audio has {sound.entry.get('channels')} channels and not {audio.entry.get('channels')}")
    if abs(sound.length_us - length) > AUDIO_PACKET:
        raise MediaError(f"the audio is {sound.length_us / 1e6:.3f} s long and not {length / 1e6:.3f} s")
    shown = sorted(video.microseconds(pts) for pts in video.packets.pts)
    if len(set(shown)) != len(shown):
        raise MediaError("two frames are shown at the same time")
    frame = round(1_000_000 / min(target.rate, video.rate))
    if abs(shown[0]) > NEAR or abs(video.length_us + shown[0] - length) > frame + NEAR:
        found = f"{video.length_us / 1e6:.3f} s from {shown[0] / 1e6:.3f} s"
        raise MediaError(f"the video lasts {found} and not {length / 1e6:.3f} s")
    for piece in parts:
        there = bisect_left(shown, piece.end - NEAR) - bisect_left(shown, piece.begin - NEAR)
        if there != piece.frames:
            where = f"{piece.begin / 1e6:.3f} to {piece.end / 1e6:.3f} s"
            raise MediaError(f"from {where} there are {there} frames and not {piece.frames}")


def check_joins(made: Probed, parts: Sequence[Piece], tools: Tools, runner: Runner) -> None:
    """Given the probed result and its pieces, decode the pictures around each join, at the start and at the end.

    Raise :class:`~muxer.errors.ToolError` when a picture cannot be decoded.
    """
    moments = sorted({*(piece.begin for piece in parts), parts[-1].end})
    for first in range(0, len(moments), DECODED_AT_ONCE):
        batch = moments[first : first + DECODED_AT_ONCE]
        runner.run(decode_command(tools, made.path, batch), timeout=DECODE_SECONDS, complaint="[")
