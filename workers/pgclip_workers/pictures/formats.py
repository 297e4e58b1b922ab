"""Which formats are opened, and what of a file is not. Runs in decoding processes: no torch."""

import importlib
import struct
from functools import cache

from pgclip.settings import FORMATS

_HEIC_BRANDS = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1"))
_PNG = b"\x89PNG\r\n\x1a\n"
# Words, and a colour profile, which no pixel needs. Pillow would decompress them, and refuses a
# picture that has much of them.
_PNG_EXTRAS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# But for those that may say which side is up.
_PNG_TURNED = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_PNG_TURNED_BYTES = 2**16


@cache
def registered(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Imports what reads them: Pillow opens a format that is asked for by name only after that.

    With pgclip[heic], HEIF is one more.
    """
    for name in chosen:
        importlib.import_module(f"PIL.{FORMATS[name]}ImagePlugin")
    try:
        import pillow_heif
    except ImportError:
        return chosen
    pillow_heif.register_heif_opener()
    return (*chosen, "HEIF")


def is_heic(data: bytes) -> bool:
    """By its brand, also where nothing here reads it."""
    return data[4:12] in _HEIC_BRANDS


def without_extras(data: bytes) -> bytes:
    """A PNG without what its pixels don't need; anything else, and what is broken, as it is."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        turned = length <= _PNG_TURNED_BYTES and data.startswith(_PNG_TURNED, at + 8)
        if turned or name not in _PNG_EXTRAS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
