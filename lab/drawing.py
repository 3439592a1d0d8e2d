"""A small canvas: the planes of a 4:2:0 frame, rectangles, and text in a 5 x 7 bitmap font."""

from functools import lru_cache

_GLYPHS = """
0 0E11131519110E|1 040C040404040E|2 0E11010204081F|3 1F02040201110E|4 02060A121F0202|5 1F101E0101110E|6 0608101E11110E
7 1F010204080808|8 0E11110E11110E|9 0E11110F01020C|: 000C0C000C0C00|. 00000000000C0C|- 0000001F000000|_ 0000000000001F
A 0E1111111F1111|B 1E11111E11111E|C 0E11101010110E|D 1C12111111121C|E 1F10101E10101F|F 1F10101E101010|G 0E11101711110F
H 1111111F111111|I 0E04040404040E|J 0702020202120C|K 11121418141211|L 1010101010101F|M 111B1515111111|N 11111915131111
O 0E11111111110E|P 1E11111E101010|Q 0E11111115120D|R 1E11111E141211|S 0F10100E01011E|T 1F040404040404|U 1111111111110E
V 11111111110A04|W 1111111515150A|X 11110A040A1111|Y 1111110A040404|Z 1F01020408101F
"""
FONT = {entry[0]: bytes.fromhex(entry[2:]) for line in _GLYPHS.split("\n") for entry in line.split("|") if line}
GLYPH_WIDTH, GLYPH_HEIGHT = 6, 7
NEUTRAL_CHROMA = (128, 128)


@lru_cache(maxsize=4096)
def _glyph_rows(character: str, scale: int, ink: int, paper: int) -> tuple[bytes, ...]:
    rows = FONT.get(character.upper(), b"" if character == " " else FONT["-"]).ljust(GLYPH_HEIGHT, b"\0")
    return tuple(
        b"".join(bytes([ink if row << 1 >> (5 - column) & 1 else paper]) * scale for column in range(GLYPH_WIDTH))
        for row in rows
    )


class Canvas:
    """A frame of even width and height in yuv420p, dark text on bright areas."""

    def __init__(self, width: int, height: int, luma: int, chroma: tuple[int, int] = NEUTRAL_CHROMA) -> None:
        """Fill the frame with one colour. Raises ValueError for an odd or empty size."""
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"a frame of {width}x{height}: both must be even")
        self.width, self.height = width, height
        self.luma = bytearray([luma]) * (width * height)
        self._chroma = [bytearray([value]) * (width * height // 4) for value in chroma]

    def copy_luma(self) -> "Canvas":
        """Return a copy whose brightness can be drawn on; the colours are shared."""
        other = object.__new__(Canvas)
        other.width, other.height, other.luma, other._chroma = self.width, self.height, self.luma[:], self._chroma
        return other

    def fill_rectangle(self, left: int, top: int, width: int, height: int, luma: int) -> None:
        """Fill a rectangle with a brightness; what is outside of the frame is cut off."""
        left, right = max(0, left), min(self.width, left + width)
        self.repeat_line(left, top, height, bytes([luma]) * max(0, right - left))

    def repeat_line(self, left: int, top: int, height: int, line: bytes) -> None:
        """Write the same line of brightness values `height` times; it must fit into the frame."""
        for y in range(max(0, top), min(self.height, top + height)):
            self.luma[y * self.width + left : y * self.width + left + len(line)] = line

    def tint_rectangle(self, left: int, top: int, width: int, height: int, chroma: tuple[int, int]) -> None:
        """Colour a rectangle, keeping its brightness."""
        stride = self.width // 2
        right = min(stride, (left + width) // 2)
        for plane, value in zip(self._chroma, chroma, strict=True):
            for y in range(top // 2, min(self.height, top + height) // 2):
                plane[y * stride + left // 2 : y * stride + right] = bytes([value]) * max(0, right - left // 2)

    def draw_text(self, left: int, top: int, text: str, scale: int, ink: int = 30, paper: int = 235) -> None:
        """Write text of ``7 * scale`` pixels height; it ends at the right edge. Unknown characters become a dash."""
        room = max(0, (self.width - left) // (GLYPH_WIDTH * scale))
        glyphs = [_glyph_rows(character, scale, ink, paper) for character in text[:room]]
        for number, rows in enumerate(zip(*glyphs, strict=True)):
            line = b"".join(rows)
            self.repeat_line(left, top + number * scale, scale, line)

    def frame_bytes(self) -> bytes:
        """Return the planes one after the other."""
        return bytes(self.luma) + bytes(self._chroma[0]) + bytes(self._chroma[1])
