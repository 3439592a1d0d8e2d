"""Screen files as they occur in the field, created from a copyable one by ffmpeg or by changed bytes."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.media_kinds import B_FRAMES, COPY, PLAIN, run_ffmpeg, run_program
from tests.support.reference import ReferenceFilm, hold_frame

# Creates the file from a folder and a copyable screen file of four seconds with ten frames per second.
Recipe = Callable[[Path, Path], Path]
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=20")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "2", "-g", "20")
BT709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
FULL_RANGE = ("-vf", "scale=out_range=full")
# Orientations: a, b, c and d of the display matrix.
ROTATIONS = {
    "90 degrees": (0, 1, -1, 0),
    "180 degrees": (-1, 0, 0, -1),
    "270 degrees": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}


def bursts(distance: str, *encoding: str) -> Sequence[str]:
    """Return options for frames in pairs, every 0.2 s, whose frames are `distance` milliseconds apart."""
    times = ("-vf", f"settb=1/1000,setpts='floor(N/2)*200+mod(N,2)*{distance}'")
    return (*times, "-fps_mode", "passthrough", "-enc_time_base", "1:1000", *encoding)


def ffmpeg_steps(*commands: tuple[str, Sequence[str]]) -> Recipe:
    """Return a recipe of one or more runs of ffmpeg, each with the suffix of its output and its output options."""

    def run_steps(folder: Path, base: Path) -> Path:
        source = base
        for number, (ending, options) in enumerate(commands):
            output = folder / f"step-{number}.{ending}"
            run_ffmpeg("-i", source, *options, output)
            source = output
        return source

    return run_steps


def without_first_keyframe(ending: str, *encoding: str) -> Recipe:
    """Return the recipe of a file whose first packets are lost: it starts in the middle of a group of pictures."""
    return ffmpeg_steps((ending, encoding), (f"cut.{ending}", (*COPY, "-copyinkf", "-ss", "0.65")))


def packet_offsets(path: Path) -> list[tuple[int, int]]:
    """Return the offset and length of each video packet in a file."""
    entries = ("-show_entries", "packet=pos,size", "-of", "csv=p=0")
    lines = run_program("ffprobe", "-v", "error", "-select_streams", "v:0", *entries, path).split()
    # Fields are in the order of ffprobe: the size first.
    return [(int(line.split(",")[1]), int(line.split(",")[0])) for line in lines]


def damaged_file(make: Recipe, *numbers: int, skip: int = 12) -> Recipe:
    """Return the recipe of a file in which some packets are overwritten after their first bytes."""

    def damage_packets(folder: Path, base: Path) -> Path:
        path = make(folder, base)
        content, packets = bytearray(path.read_bytes()), packet_offsets(path)
        for number in numbers:
            position, size = packets[number]
            begin = position + min(skip, size // 2)
            content[begin : position + size] = random.Random(number).randbytes(position + size - begin)
        output = path.with_name(f"damaged-{path.name}")
        output.write_bytes(content)
        return output

    return damage_packets


def rotated_file(make: Recipe, turn: str) -> Recipe:
    """Return the recipe of an MP4 file with another display matrix."""
    a, b, c, d = ROTATIONS[turn]

    def write_matrix(folder: Path, base: Path) -> Path:
        path = make(folder, base)
        content = bytearray(path.read_bytes())
        upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        at = content.index(upright, content.index(b"tkhd"))
        content[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        output = path.with_name(f"turned-{path.name}")
        output.write_bytes(content)
        return output

    return write_matrix


@dataclass(frozen=True)
class EditEntry:
    """An entry of an edit list: its length and its start in the media, in seconds.

    A start of None is an empty edit. A dwell shows the frame at its start all the time."""

    length: float
    begin: float | None
    dwell: bool = False


def edited_file(make: Recipe, *edits: EditEntry) -> Recipe:
    """Return the recipe of an MP4 file with its index at the end and another edit list."""

    def write_edit_list(folder: Path, base: Path) -> Path:
        path = make(folder, base)
        content = path.read_bytes()
        moov = content.rindex(b"moov") - 4
        movie_scale = int.from_bytes(content[moov + 28 : moov + 32], "big")
        mdhd = content.index(b"mdhd", moov)
        scale = int.from_bytes(content[mdhd + 16 : mdhd + 20], "big")
        entries = b"".join(
            struct.pack(
                ">IiI",
                round(edit.length * movie_scale),
                -1 if edit.begin is None else round(edit.begin * scale),
                0 if edit.dwell else 1 << 16,
            )
            for edit in edits
        )
        index = content[moov:]
        edts = index.index(b"edts") - 4
        old = int.from_bytes(index[edts : edts + 4], "big")
        elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
        new = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
        index = bytearray(index[:edts] + new + index[edts + old :])  # type: ignore[assignment]
        for box in (b"moov", b"trak"):
            at = index.index(box) - 4
            size = int.from_bytes(index[at : at + 4], "big") + len(new) - old
            index[at : at + 4] = size.to_bytes(4, "big")  # type: ignore[index]
        output = path.with_name(f"edited-{path.name}")
        output.write_bytes(content[:moov] + index)
        return output

    return write_edit_list


def with_prefix_units(folder: Path, base: Path) -> Path:
    """H.264 with temporal layers: a prefix unit (type 14) before each slice."""
    raw = ffmpeg_steps(("h264", (*PLAIN, "-bsf:v", "h264_mp4toannexb")))(folder, base)
    begin = b"\0\0\1"
    units = re.split(rb"\x00*\x00\x00\x01", raw.read_bytes())[1:]
    prefixed = (begin + b"\x6e\x40\x80\x07" + begin + one if one[0] & 31 in (1, 5) else begin + one for one in units)
    layered = folder / "layered.h264"
    layered.write_bytes(b"".join(prefixed))
    run_ffmpeg("-framerate", "10", "-i", layered, *COPY, folder / "layered.mp4")
    return folder / "layered.mp4"


def with_chapters(folder: Path, base: Path) -> Path:
    text = folder / "chapters.txt"
    text.write_text(";FFMETADATA1\ntitle=a\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=2000\ntitle=one\n")
    run_ffmpeg("-i", base, "-f", "ffmetadata", "-i", text, *COPY, "-map_chapters", "1", folder / "chapters.mp4")
    return folder / "chapters.mp4"


def with_cover(folder: Path, base: Path) -> Path:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", "1", folder / "cover.png")
    options = ("-map", "1", "-map", "0", *COPY, "-disposition:v:0", "attached_pic")
    run_ffmpeg("-i", base, "-i", folder / "cover.png", *options, folder / "cover.mp4")
    return folder / "cover.mp4"


def second_video(folder: Path, base: Path) -> Path:
    run_ffmpeg("-i", base, "-f", "lavfi", "-i", "testsrc=s=64x64:d=4", "-map", "0", "-map", "1", *PLAIN, folder / "two.mp4")
    return folder / "two.mp4"


def repeated_file(make: Recipe) -> Recipe:
    """Return the recipe of a file followed by itself, as a restarted recorder writes it."""

    def write_twice(folder: Path, base: Path) -> Path:
        path = make(folder, base)
        output = path.with_name(f"joined-{path.name}")
        output.write_bytes(path.read_bytes() * 2)
        return output

    return write_twice


def unknown_codec(folder: Path, base: Path) -> Path:
    """Create an MP4 file whose codec is unknown to ffmpeg."""
    content = bytearray(base.read_bytes())
    at = content.index(b"avc1", content.index(b"stsd"))
    content[at : at + 4] = b"zzzz"
    (output := folder / "unknown.mp4").write_bytes(content)
    return output


# Some frames only: instead of a missing frame, the previous one is shown longer.
SPARSE_FRAMES = ("-vf", "select='not(between(n,9,22))*not(between(n,30,33))'", "-fps_mode", "vfr")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")
EVERY_SECOND = ("-vf", "select='not(mod(n,10))'", "-r", "1")

# A kind with damage in copied frames, and the time at which the damage starts.
COPIED_DAMAGE, DAMAGED_AT = "H.264 in Matroska, damaged where it is copied", 2.7

SCREENS: dict[str, Recipe] = {
    "time code in MP4": ffmpeg_steps(("mp4", (*COPY, "-timecode", "10:00:00:00"))),
    "time code in MOV": ffmpeg_steps(("mov", (*COPY, "-timecode", "10:00:00:00"))),
    "time code, to be re-encoded": ffmpeg_steps(("mov", (*MPEG4, "-timecode", "10:00:00:00"))),
    "time code and a fractional rate": ffmpeg_steps(("mov", (*HEVC, "-r", "30000/1001", "-timecode", "00:00:00;02"))),
    "temporal layers": with_prefix_units,
    "parameter sets within the frames": ffmpeg_steps(("mp4", (*PLAIN, "-tag:v", "avc3"))),
    "chapters": with_chapters,
    "cover image in front": with_cover,
    "two video tracks": second_video,
    "tags of a phone": ffmpeg_steps(("mp4", (*COPY, "-metadata", "location=+1-2/", "-metadata:s:v", "handler_name=x"))),
    "no first keyframe, Matroska": without_first_keyframe("mkv", *PLAIN),
    "no first keyframe, Matroska, B-frames": without_first_keyframe("mkv", *B_FRAMES),
    "no first keyframe, MP4": without_first_keyframe("mp4", *PLAIN),
    "no first keyframe, MPEG-TS": without_first_keyframe("ts", *PLAIN),
    "no first keyframe, VP9": without_first_keyframe("webm", *VP9),
    "no first keyframe, MPEG-4 in AVI": without_first_keyframe("avi", *MPEG4),
    "AVI with empty chunks": ffmpeg_steps(("avi", (*SPARSE_FRAMES, *MPEG4, "-r", "10"))),
    "AVI with empty chunks, Motion JPEG": ffmpeg_steps(("avi", (*SPARSE_FRAMES, "-c:v", "mjpeg", "-q:v", "2", "-r", "10"))),
    "AVI with one frame per second": ffmpeg_steps(("avi", (*EVERY_SECOND, *MPEG4))),
    "AVI with a frame a second, H.264": ffmpeg_steps(("avi", (*EVERY_SECOND, *PLAIN))),
    "AVI with B-frames packed": ffmpeg_steps(("avi", (*MPEG4, "-bf", "2", "-bsf:v", "mpeg4_unpack_bframes"))),
    "AVI without compression": ffmpeg_steps(("avi", ("-c:v", "rawvideo"))),
    "AVI with a palette": ffmpeg_steps(("avi", ("-c:v", "rawvideo", "-pix_fmt", "pal8"))),
    "MOV with a palette": ffmpeg_steps(("mov", ("-c:v", "rawvideo", "-pix_fmt", "pal8"))),
    "Matroska with few frames": ffmpeg_steps(("mkv", (*SPARSE_FRAMES, *VP9))),
    "MP4 with few frames": ffmpeg_steps(("mp4", (*SPARSE_FRAMES, *PLAIN))),
    "VP8 with hidden frames": ffmpeg_steps(
        ("webm", ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-g", "20"))
    ),
    "VP9 with hidden frames": ffmpeg_steps(
        ("webm", ("-c:v", "libvpx-vp9", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-cpu-used", "8"))
    ),
    "H.265 with open groups": ffmpeg_steps(
        ("mp4", ("-c:v", "libx265", "-x265-params", "log-level=none:keyint=10:open-gop=1"))
    ),
    "MPEG-2 in a program stream": ffmpeg_steps(("mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-r", "25", "-bf", "2"))),
    "H.264 in a program stream": ffmpeg_steps(("vob", (*PLAIN, "-r", "25", "-f", "vob"))),
    "MPEG-1 in a program stream": ffmpeg_steps(("mpeg", ("-c:v", "mpeg1video", "-q:v", "2", "-r", "25"))),
    "MPEG-2 in MPEG-TS, interlaced": ffmpeg_steps(
        ("ts", ("-c:v", "mpeg2video", "-q:v", "2", "-r", "25", "-flags", "+ildct+ilme"))
    ),
    "FLV": ffmpeg_steps(("flv", PLAIN)),
    "FLV, Sorenson": ffmpeg_steps(("flv", ("-c:v", "flv", "-q:v", "2"))),
    "FLV, screen video": ffmpeg_steps(("flv", ("-c:v", "flashsv"))),
    "Windows Media": ffmpeg_steps(("wmv", ("-c:v", "wmv2", "-q:v", "2"))),
    "MOV, animation": ffmpeg_steps(("mov", ("-c:v", "qtrle"))),
    "Theora in Ogg": ffmpeg_steps(("ogv", ("-c:v", "libtheora", "-q:v", "8"))),
    "FFV1 in Matroska": ffmpeg_steps(("mkv", ("-c:v", "ffv1"))),
    "H.264, 10 bit": ffmpeg_steps(
        ("mp4", ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p10le", "-threads", "1"))
    ),
    "colours of BT.709": ffmpeg_steps(("mp4", (*PLAIN, *BT709))),
    "colours of BT.709, to be re-encoded": ffmpeg_steps(("webm", (*VP9, *BT709))),
    "full range": ffmpeg_steps(("mp4", (*PLAIN, *FULL_RANGE, "-pix_fmt", "yuvj420p"))),
    "full range, to be re-encoded": ffmpeg_steps(("mp4", (*HEVC, *FULL_RANGE, "-pix_fmt", "yuvj420p"))),
    "full range, stated by the file alone": ffmpeg_steps(("webm", (*VP9, *FULL_RANGE, "-color_range", "pc"))),
    "RGB": ffmpeg_steps(("mkv", ("-c:v", "libx264rgb", "-qp", "10", "-threads", "1"))),
    "IVF": ffmpeg_steps(("ivf", VP8)),
    "MXF": ffmpeg_steps(("mxf", ("-c:v", "mpeg2video", "-q:v", "2", "-r", "25", "-bf", "2"))),
    "NUT": ffmpeg_steps(("nut", MPEG4)),
    "RealMedia": ffmpeg_steps(("rm", ("-c:v", "rv20", "-q:v", "2"))),
    "DV": ffmpeg_steps(("dv", ("-c:v", "dvvideo", "-s", "720x576", "-r", "25", "-pix_fmt", "yuv420p"))),
    "3GP": ffmpeg_steps(("3gp", ("-c:v", "h263", "-s", "352x288", "-q:v", "2"))),
    "an empty edit in the middle": edited_file(
        ffmpeg_steps(("mp4", PLAIN)), EditEntry(1.5, 0), EditEntry(0.7, None), EditEntry(2.5, 1.5)
    ),
    "an empty edit at the end": edited_file(ffmpeg_steps(("mp4", PLAIN)), EditEntry(4, 0), EditEntry(0.5, None)),
    "two empty edits, B-frames": edited_file(
        ffmpeg_steps(("mp4", B_FRAMES)),
        EditEntry(1, 0.2),
        EditEntry(0.5, None),
        EditEntry(1, 1.2),
        EditEntry(0.25, None),
        EditEntry(2, 2.2),
    ),
    "a dwell": edited_file(
        ffmpeg_steps(("mp4", PLAIN)), EditEntry(1.2, 0), EditEntry(0.8, 1.2, dwell=True), EditEntry(2.8, 1.2)
    ),
    "an edit list that skips a second": edited_file(ffmpeg_steps(("mp4", PLAIN)), EditEntry(1, 0), EditEntry(2, 2)),
    "an edit list that shows a second twice": edited_file(ffmpeg_steps(("mp4", PLAIN)), EditEntry(2, 0), EditEntry(2, 1)),
    "an edit list with a pause that ends early": edited_file(
        ffmpeg_steps(("mp4", PLAIN)), EditEntry(1, 0), EditEntry(0.5, None), EditEntry(1.5, 1)
    ),
    "an edit list that ends early": edited_file(ffmpeg_steps(("mp4", PLAIN)), EditEntry(2.75, 0)),
    "bursts of frames, B-frames": ffmpeg_steps(("mp4", ("-vf", "select='lt(mod(n,20),4)'", "-fps_mode", "vfr", *B_FRAMES))),
    "two frames at one time": ffmpeg_steps(("webm", bursts("0", *VP8))),
    "frames a millisecond apart, to be re-encoded": ffmpeg_steps(("webm", bursts("1", *VP8))),
    "frames a millisecond apart": ffmpeg_steps(("mp4", bursts("1", *B_FRAMES))),
    "MPEG-4 in AVI, damaged": damaged_file(ffmpeg_steps(("avi", MPEG4)), 13),
    "MPEG-4 in MP4, damaged": damaged_file(ffmpeg_steps(("mp4", MPEG4)), 25),
    "two files joined, MPEG-TS": repeated_file(ffmpeg_steps(("ts", (*PLAIN, "-t", "2")))),
    "two files joined, program stream": repeated_file(
        ffmpeg_steps(("mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-r", "25", "-t", "2")))
    ),
    "damaged VP9": damaged_file(ffmpeg_steps(("webm", VP9)), 13),
    "damaged VP9, first frame shown": damaged_file(ffmpeg_steps(("webm", VP9)), 15),
    "damaged VP9, three frames": damaged_file(ffmpeg_steps(("webm", VP9)), 5, 23, 39),
    "damaged H.265": damaged_file(ffmpeg_steps(("mp4", HEVC)), 27),
    "damaged Motion JPEG": damaged_file(ffmpeg_steps(("avi", ("-c:v", "mjpeg", "-q:v", "2"))), 20, skip=700),
    "damaged PNG": damaged_file(ffmpeg_steps(("mov", ("-c:v", "png"))), 22),
    COPIED_DAMAGE: damaged_file(ffmpeg_steps(("mkv", PLAIN)), 27, skip=20),
    **{f"turned, {turn}": rotated_file(ffmpeg_steps(("mp4", PLAIN)), turn) for turn in ROTATIONS},
    **{
        f"turned, {turn}, to be re-encoded": rotated_file(ffmpeg_steps(("mp4", HEVC)), turn)
        for turn in ("90 degrees", "mirrored")
    },
    "rotated, fragmented": rotated_file(
        ffmpeg_steps(("mp4", (*PLAIN, "-movflags", "frag_keyframe+empty_moov"))), "270 degrees"
    ),
}
# Files that are refused, and the error messages.
REFUSED: dict[str, tuple[Recipe, str]] = {
    "a codec without a decoder": (unknown_codec, "the codec unknown is not supported by this build of ffmpeg"),
    "raw H.264": (
        ffmpeg_steps(("h264", PLAIN)),
        "the format h264 is not supported: it contains no presentation times",
    ),
    "raw H.265": (ffmpeg_steps(("hevc", HEVC)), "the format hevc is not supported"),
    "a GIF": (ffmpeg_steps(("gif", ())), "the format gif is not supported"),
    "a Flash film": (ffmpeg_steps(("swf", ("-c:v", "flv", "-r", "10"))), "the format swf is not supported"),
    "a third of the frames damaged": (
        damaged_file(ffmpeg_steps(("webm", VP9)), *range(2, 38, 3)),
        "the file is damaged: ",
    ),
    "no keyframe": (without_first_keyframe("mkv", *PLAIN, "-g", "100"), "no frame of the file can be decoded"),
}
# The duration of files, where it is not the four seconds of the source.
LENGTHS = {
    **{name: 3.3 for name in SCREENS if name.startswith("no first keyframe")},
    "an empty edit in the middle": 4.7,
    "an empty edit at the end": 4.5,
    "two empty edits, B-frames": 4.75,
    "a dwell": 4.8,
    "an edit list that skips a second": 3.0,
    "an edit list with a pause that ends early": 3.0,
    "an edit list that ends early": 2.75,
    "bursts of frames, B-frames": 2.4,
    "two frames at one time": 3.9,
    "frames a millisecond apart": 3.9,
    "frames a millisecond apart, to be re-encoded": 3.9,
}

# The effect of an edit list on the film without it, where ffmpeg differs from ISO/IEC 14496-12, 8.6.6.
REARRANGED: dict[str, Callable[[ReferenceFilm], ReferenceFilm]] = {
    "an empty edit in the middle": lambda film: hold_frame(film, 1.5, 0.7),
    "an empty edit at the end": lambda film: film,
    "an edit list with a pause that ends early": lambda film: hold_frame(film, 1.0, 0.5),
    "two empty edits, B-frames": lambda film: hold_frame(hold_frame(film, 2.0, 0.25), 1.0, 0.5),
    "a dwell": lambda film: hold_frame(film, 1.2, 0.8, including=True),
}
