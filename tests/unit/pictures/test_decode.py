"""Decoding: equal to transformers' processor, one rule for each odd picture, nothing gets out."""

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import psutil
import pytest
from PIL import Image
from support.checkpoints import make_clip
from support.pictures import encoded, jpeg, noise
from support.places import TESTS
from transformers import CLIPImageProcessorPil

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Picture, Pixels, decode
from pgclip_workers.pictures.decoders import Decoders, Interrupted
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.sources import Limits

LIMITS = Limits(max_bytes=10**7, max_pixels=10**7, roots=())
SQUARE = Preprocessing(
    resize=(32, 32), crop=(32, 32), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
    fast_decode=False,
)  # fmt: skip
NAFLEX = replace(SQUARE, resize=(), crop=(0, 0), patch_size=8, max_patches=20)


def pixels(data: bytes, preprocessing: Preprocessing = SQUARE) -> "np.ndarray[Any, Any]":
    decoded = decode(data, None, preprocessing, LIMITS)
    assert isinstance(decoded, Pixels), decoded
    return decoded.array


def refusal(data: bytes | None, source: str | None = None, limits: Limits = LIMITS) -> Refused:
    refused = decode(data, source, SQUARE, limits)
    assert isinstance(refused, Refused)
    return refused


@pytest.mark.parametrize(
    "sizes",
    [
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 28}},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False},
        {"size": {"height": 40, "width": 36}, "crop_size": {"height": 32, "width": 32}},
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 37, "width": 35}},
        {"size": {"height": 48, "width": 24}, "do_center_crop": False, "resample": 2},
    ],
)
@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (333, 77), (64, 64), (20, 17)])
def test_pixels_equal_the_reference_processor(
    sizes: dict[str, Any], shape: tuple[int, int]
) -> None:
    processor = CLIPImageProcessorPil(**sizes)
    preprocessing = Preprocessing.from_processor(processor, fast_decode=False)
    data = encoded(noise(1, *shape), "PNG")
    reference = processor(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"][0]
    scale, mean, std = preprocessing.scale, preprocessing.mean, preprocessing.std
    ours = (pixels(data, preprocessing) * scale - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(ours.transpose(2, 0, 1), reference, atol=1e-5)


def test_a_processor_of_another_kind_is_refused() -> None:
    processor = CLIPImageProcessorPil(size={"longest_edge": 32}, do_center_crop=False)
    with pytest.raises(ValueError, match="is not supported"):
        Preprocessing.from_processor(processor, fast_decode=True)


def test_the_fingerprint_tells_rules_apart_and_stays_as_it_was() -> None:
    clip = replace(SQUARE, resize=(32,))
    assert clip.fingerprint() == {
        "preprocessing": {
            "version": 1, "exif": "transposed", "height": 32, "width": 32, "shortest_edge": 32,
            "resample": 3, "scale": 1 / 255, "mean": (0.0,) * 3, "std": (1.0,) * 3,
            "fast_decode": False,
        }
    }  # fmt: skip
    others = (
        SQUARE, NAFLEX, replace(NAFLEX, max_patches=30), replace(clip, even_margin=True),
        replace(clip, fast_decode=True), replace(SQUARE, resize=(40, 32)),
        replace(clip, resample=2),
    )  # fmt: skip
    told = [str(each.fingerprint()) for each in (clip, *others)]
    assert len(set(told)) == len(told)


def test_fast_decoding_is_close() -> None:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    data = jpeg(3, 1600, 1200)
    fast, full = (
        pixels(data, Preprocessing.from_processor(processor, fast_decode=on)).astype(float)
        for on in (True, False)
    )
    assert np.abs(fast - full).max() < 12
    assert np.abs(fast - full).mean() < 1


def test_transparency_becomes_white() -> None:
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert (pixels(encoded(picture, "PNG")) == 255).all()
    half = Image.new("LA", (64, 64), (0, 128))
    assert abs(int(pixels(encoded(half, "PNG"))[5, 5, 0]) - 127) <= 1
    palette = picture.convert("P")
    palette.info["transparency"] = 0
    assert pixels(encoded(palette, "PNG")).shape == (32, 32, 3)


def test_sixteen_bits_are_scaled() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    values = pixels(encoded(Image.fromarray(ramp), "PNG"))
    assert values.min() < 5
    assert values.max() > 250
    assert abs(int(values[16, 16, 0]) - 128) < 8


COLOURS = np.array([[[230, 30, 30], [20, 200, 60]], [[40, 60, 220], [240, 230, 40]]], np.uint8)
GREY = np.asarray(Image.fromarray(COLOURS).convert("L").convert("RGB"), int)


def quarters(mode: str) -> Image.Image:
    """Four plain quarters of 32 × 32: red, green, blue and yellow, in a mode of Pillow's."""
    picture = Image.fromarray(COLOURS).resize((64, 64), Image.Resampling.NEAREST)
    return picture.convert(mode)


# What each format and mode is expected to come out as, and by how much colours may be off.
@pytest.mark.parametrize(
    ("format", "mode", "expected", "tolerance"),
    [
        ("JPEG", "RGB", COLOURS, 12),
        ("JPEG", "L", GREY, 4),
        ("JPEG", "CMYK", COLOURS, 12),
        ("PNG", "RGB", COLOURS, 0),
        ("PNG", "RGBA", COLOURS, 0),
        ("PNG", "P", COLOURS, 1),
        ("PNG", "L", GREY, 0),
        ("PNG", "LA", GREY, 0),
        ("PNG", "1", None, 0),
        ("WEBP", "RGB", COLOURS, 20),
        ("WEBP", "RGBA", COLOURS, 20),
        ("AVIF", "RGB", COLOURS, 20),
        ("AVIF", "RGBA", COLOURS, 20),
        ("HEIF", "RGB", COLOURS, 20),
        ("GIF", "P", COLOURS, 1),
        ("GIF", "L", GREY, 0),
        ("BMP", "RGB", COLOURS, 0),
        ("BMP", "P", COLOURS, 1),
        ("TIFF", "RGB", COLOURS, 0),
        ("TIFF", "CMYK", COLOURS, 1),
        ("TIFF", "L", GREY, 0),
    ],
)
def test_formats_and_modes(format: str, mode: str, expected: Any, tolerance: int) -> None:
    pillow_heif.register_heif_opener()
    palette = {"P": quarters("RGB").convert("P", palette=Image.Palette.ADAPTIVE)}
    values = pixels(encoded(palette.get(mode) or quarters(mode), format)).astype(int)
    assert values.shape == (32, 32, 3)
    if expected is None:  # dithered black and white: as bright as the grey, on the whole
        expected, tolerance = GREY, 25
        values = values.reshape(2, 16, 2, 16, 3).mean(axis=(1, 3)).repeat(16, 0).repeat(16, 1)
    middles = values[8::16, 8::16]
    assert np.abs(middles - expected).max() <= tolerance


def test_a_heic_is_decoded_and_not_its_thumbnail() -> None:
    pillow_heif.register_heif_opener()
    picture = quarters("RGB").resize((512, 512))
    picture.info["thumbnails"] = [128]
    data = encoded(picture, "HEIF")
    alone = encoded(quarters("RGB").resize((512, 512)), "HEIF")
    for rules in (SQUARE, replace(SQUARE, fast_decode=True)):
        np.testing.assert_array_equal(pixels(data, rules), pixels(alone, rules))


def test_heic_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif.register_heif_opener()
    data = encoded(noise(1), "HEIF")
    assert pixels(data).shape == (32, 32, 3)
    monkeypatch.setattr("pgclip_workers.pictures.decode.registered", lambda chosen: chosen)
    refused = refusal(data)
    assert refused.reason == "not_an_image"
    assert "pgclip[heic]" in refused.message


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    picture = quarters("RGB")
    if orientation in undo:
        picture = picture.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = pixels(encoded(picture, format, exif=exif), replace(SQUARE, fast_decode=True))
    assert np.abs(values[8::16, 8::16].astype(int) - COLOURS).max() <= 20


def test_an_animation_counts_with_its_first_frame() -> None:
    frames = [noise(n, 64, 64).convert("P") for n in (1, 2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(data), pixels(encoded(frames[0], "GIF")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no picture", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"%PDF-1.4", "not_an_image"),
        (jpeg(1)[:700], "unreadable_image"),
        (b"GIF89a", "not_an_image"),
        (encoded(noise(1), "PNG")[:-60], "unreadable_image"),
        (encoded(noise(1), "PPM"), "not_an_image"),
    ],
)
def test_what_can_not_be_decoded(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


def test_limits() -> None:
    assert refusal(b"x" * 11, limits=Limits(10, 10**6, ())).reason == "too_large"
    bomb = encoded(Image.new("1", (5000, 5000)), "PNG")
    assert len(bomb) < 5000
    refused = refusal(bomb)
    assert refused.reason == "too_large"
    assert "5000 × 5000 pixels" in refused.message


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_pictures_are_decoded_or_refused() -> None:
    random = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP"):
        original = np.frombuffer(encoded(noise(1, 40, 30), format), np.uint8)
        for _ in range(40):
            data = original.copy()
            places = random.integers(0, len(data), random.integers(1, 20))
            data[places] = random.integers(0, 256, len(places))
            cut = random.integers(1, len(data) + 1)
            assert isinstance(decode(bytes(data[:cut]), None, SQUARE, LIMITS), Pixels | Refused)


class TestSources:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "allowed"
        root.mkdir()
        (root / "a b.jpg").write_bytes(jpeg(1))
        (tmp_path / "secret.jpg").write_bytes(jpeg(2))
        (tmp_path / "allowed-too").mkdir()
        (tmp_path / "allowed-too" / "x.jpg").write_bytes(jpeg(2))
        return root

    def read(self, path: str | Path, root: Path) -> Pixels | Refused:
        source = path.as_uri() if isinstance(path, Path) else path
        return decode(None, source, SQUARE, Limits(10**6, 10**6, (root,)))

    def reason(self, path: str | Path, root: Path) -> str:
        refused = self.read(path, root)
        assert isinstance(refused, Refused)
        return refused.reason

    def test_a_file_below_a_root_is_read(self, root: Path) -> None:
        read = self.read(root / "a b.jpg", root)
        assert isinstance(read, Pixels)
        np.testing.assert_array_equal(read.array, pixels(jpeg(1)))
        assert isinstance(self.read(f"file://localhost{root}/a%20b.jpg", root), Pixels)

    def test_nothing_outside_of_it_is(self, root: Path, tmp_path: Path) -> None:
        (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
        (root / "folder").symlink_to(tmp_path)
        outside = [
            root / "link.jpg", root / "folder" / "secret.jpg", root / ".." / "secret.jpg",
            tmp_path / "secret.jpg", tmp_path / "allowed-too" / "x.jpg", Path("/etc/passwd"),
            f"file://{root}/%2e%2e/secret.jpg", Path("/no/such/file"),
        ]  # fmt: skip
        for path in outside:
            assert self.reason(path, root) == "forbidden_path", path

    def test_without_roots_nothing_is_read(self, root: Path) -> None:
        assert refusal(None, (root / "a b.jpg").as_uri()).reason == "forbidden_path"

    def test_what_is_not_a_readable_file(self, root: Path) -> None:
        os.mkfifo(root / "pipe")
        (root / "empty.jpg").touch()
        (root / "large.jpg").write_bytes(bytes(10**6 + 1))
        assert self.reason(root / "missing.jpg", root) == "missing_file"
        assert self.reason(root, root) == "unreadable_file"
        assert self.reason(root / "pipe", root) == "unreadable_file"
        assert self.reason(root / "empty.jpg", root) == "empty"
        assert self.reason(root / "large.jpg", root) == "too_large"

    def test_other_schemes(self, root: Path) -> None:
        for source in ("https://x.org/a.jpg", "s3://b/c", "file:relative", "file://host/a.jpg"):
            expected = "forbidden_url" if not source.startswith("file:") else "unknown_scheme"
            assert self.reason(source, root) in (expected, "forbidden_path"), source


def test_decoding_processes_that_misbehave(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = TESTS / "support" / "planted"
    monkeypatch.setenv("PYTHONPATH", str(planted))
    decoders = Decoders(Settings.load({}, decode_timeout=3, decoder_memory=2**30), 2)
    try:
        given = (b"ABORT", jpeg(1), b"HANG", jpeg(2), b"EAT MEMORY", jpeg(3), b"RAISE")
        decoded = decoders.decode([Picture(data, None) for data in given], SQUARE)
        outcomes = dict(zip(given, decoded, strict=True))
    finally:
        decoders.stop()
    reasons = {data: o.reason for data, o in outcomes.items() if isinstance(o, Refused)}
    assert reasons == {
        b"ABORT": "decoder_died", b"HANG": "decoder_timeout", b"EAT MEMORY": "decoder_memory",
        b"RAISE": "decoder_error",
    }  # fmt: skip
    assert "SIGABRT" in outcomes[b"ABORT"].message  # type: ignore[union-attr]


def test_decoding_processes_give_the_pixels_in_order(tmp_path: Path) -> None:
    (tmp_path / "file.jpg").write_bytes(jpeg(99))
    given = [
        *(Picture(jpeg(n, 60 + n, 70), None) for n in range(9)),
        Picture(b"", None),
        Picture(None, (tmp_path / "file.jpg").as_uri()),
        Picture(None, (tmp_path / "none.jpg").as_uri()),
        *(Picture(jpeg(n), None) for n in range(9, 12)),
    ]
    decoders = Decoders(Settings.load({}, roots=(tmp_path,)), 2)
    try:
        for preprocessing in (SQUARE, NAFLEX):
            found = decoders.decode(given, preprocessing)
            limits = replace(LIMITS, roots=(tmp_path,))
            for picture, each in zip(given, found, strict=True):
                alone = decode(picture.data, picture.source, preprocessing, limits)
                assert type(each) is type(alone)
                if isinstance(each, Pixels) and isinstance(alone, Pixels):
                    assert each.hash == alone.hash
                    np.testing.assert_array_equal(each.array, alone.array)
        assert decoders.decode([], SQUARE) == []
    finally:
        decoders.stop()
    # The pixels are there as long as someone has them.
    assert found[0].array.mean() > 0  # type: ignore[union-attr]


def test_the_checkpoint_decides_the_geometry(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    make_clip(tmp_path, processor={"size": {"height": 30, "width": 30}, "do_center_crop": False})
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert Preprocessing.from_processor(processor, True).crop == (30, 30)


def test_a_decoding_process_killed_while_idle_is_replaced() -> None:
    decoders = Decoders(Settings.load({}, decode_timeout=1), 1)
    try:
        decoders.warm_up()
        for _ in range(2):
            for child in psutil.Process().children(recursive=True):
                if "forkserver" in " ".join(child.cmdline()) and child.children() == []:
                    child.kill()
            pictures = [Picture(jpeg(n), None) for n in range(20)]
            assert all(isinstance(each, Pixels) for each in decoders.decode(pictures, SQUARE))
    finally:
        decoders.stop()
    with pytest.raises(Interrupted):
        decoders.decode([Picture(jpeg(1), None)], SQUARE)
