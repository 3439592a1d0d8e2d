"""Muxes one recording: an audio file and its screen files become one MP4 file. `engine.py` walks through it once:

1. `analyze/`: what is in the files. Copyable files are read at once (`copyable`), others by ffprobe (`probe`) and, where
   possible, converted by ffmpeg (`source_reader`). Audio is copied, or decoded and re-encoded (`audio_reader`).
2. `plan/`: pure. When which screen is visible (`timeline`), what of it is copied and what re-encoded (`cut`), the pieces of
   the result (`pieces`), the ffmpeg commands for them (`commands`), the frames to compare (`frame_checks`); `mux_plan`
   holds the result.
3. `encode`: ffmpeg encodes what cannot be copied, and padding (kept for other recordings in `padding_cache`).
4. `mp4/`: reads and writes MP4 files; `sample_spans` puts the samples of several files into one table.
5. `verify`: reads the written file and compares it with the plan (`frame_comparison`).

Imports go downwards only: engine, verify, plan and analyze (which do not import each other), encode, sample_spans, ffmpeg
(options that all commands share), media_info (what is known of a file), mp4, limits. `ffmpeg_trial` checks at the start
whether the installed ffmpeg supports all of this.
"""
