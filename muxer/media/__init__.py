"""Muxes one recording: an audio file and its screen files become one MP4 file. `engine.py` walks through it once.

`analyze/` reads what is in the files, `plan/` (pure) decides, `encode` makes what cannot be copied, `mp4/` reads and writes
files, `verify` compares the result with the plan. Imports go downwards only: engine, verify, plan and analyze (which do not
import each other), encode, sample_spans, ffmpeg, media_info, mp4, limits.
"""
