"""Reads and writes MP4 files and MP3 frames. Imports nothing of media but its limits; what others need is exported here.

Boxes that are written (`write_movie`), one line a box; `read_tracks` reads the same ones and those in brackets::

    ftyp                        brands isom, iso2, avc1, mp41
    moov                        the index, in front of the media
      mvhd                      version 1, time scale 90000
      [mvex]                    a fragmented file: refused with BoxError, ffmpeg converts it
      trak                      one for the video, one for the audio
        tkhd                    with the display matrix (orientation.py)
        edts / elst             one entry; [start offset, dwells and pauses: EditPause]
        mdia
          mdhd                  time scale of the track, language und
          hdlr                  vide or soun
          minf
            vmhd or smhd, dinf / dref / url
            stbl
              stsd              avc1 (avcC, pasp), or the sample entry of the audio as it was [mp4a/esds, Opus, fLaC]
              stts, ctts        durations, presentation offsets (ctts only with B-frames)
              stss              sync samples
              stsc, stsz        samples per chunk, sample sizes
              stco or co64      chunk offsets: co64 from 4 GiB on
              sgpd, sbgp        sample groups of the audio, copied as they are (roll distance)
    mdat                        audio and video interleaved in chunks of one second

=====================================  ==================================================
ISO/IEC 14496-12                       boxes, tables, edit lists, display matrix
ISO/IEC 14496-14 and -1                mp4a, esds and its object types
ISO/IEC 14496-15 and -10               avc1, avcC; parameter sets of H.264
ISO/IEC 11172-3 and 13818-3            frames of MP3 (layer III), free format
id3.org, APEv2, Lyrics3, Xing/LAME     tags and descriptions between MP3 frames
=====================================  ==================================================
"""

from muxer.media.mp4.avc import AvcConfig, AvcError
from muxer.media.mp4.boxes import BoxError
from muxer.media.mp4.index_comparison import compare_indexes
from muxer.media.mp4.mp3 import Mp3File, describe_samples, read_mp3
from muxer.media.mp4.ordering import is_increasing, sorted_copy
from muxer.media.mp4.orientation import UPRIGHT, Orientation, printed_numbers, read_orientation
from muxer.media.mp4.sample_entries import find_idr_samples, read_audio_codec, read_avc_config
from muxer.media.mp4.samples import TIMESCALE, SampleTable, decoding_times, to_ticks
from muxer.media.mp4.tracks import (
    MAX_INDEX_BYTES,
    MAX_PACKET_US,
    CopyableAudio,
    Track,
    last_sample_end,
    read_tracks,
    starts_with_index,
)
from muxer.media.mp4.writer import join_extents, write_movie

__all__ = [
    "MAX_INDEX_BYTES",
    "MAX_PACKET_US",
    "TIMESCALE",
    "UPRIGHT",
    "AvcConfig",
    "AvcError",
    "BoxError",
    "CopyableAudio",
    "Mp3File",
    "Orientation",
    "SampleTable",
    "Track",
    "compare_indexes",
    "decoding_times",
    "describe_samples",
    "find_idr_samples",
    "is_increasing",
    "join_extents",
    "last_sample_end",
    "printed_numbers",
    "read_audio_codec",
    "read_avc_config",
    "read_mp3",
    "read_orientation",
    "read_tracks",
    "sorted_copy",
    "starts_with_index",
    "to_ticks",
    "write_movie",
]
