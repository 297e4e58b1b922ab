"""What a GPU makes of it: the vectors, the forward pass, the whole system, and pressure.

    python benchmarks/gpu.py [exact] [forward] [compiled] [pressure] [system]

Each part prints as it goes and keeps results/gpu-PART.json. Without a GPU all of it is small and
nothing is kept, to try the script.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from urllib.request import urlopen

import pgclip_workers  # isort: skip  # sets what torch and numpy read on import
import numpy as np
import psutil
import torch
from checkpoint import make_checkpoint
from figures import Figure, keep, quantile, show, timed
from here import DATA
from photos import photo
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from sequential import Sequential, products
from system import working
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
from workload import large_photo, short_text

from pgclip import Client
from pgclip.settings import Settings
from pgclip_workers.models.clip import ClipEncoder
from pgclip_workers.models.device import memory
from pgclip_workers.pictures.decode import Pixels, decode
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.sources import Limits

assert pgclip_workers
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
SIZES = {"ViT-B-32": (64, 256, 1024), "ViT-L-14": (64, 256)} if GPU else {"ViT-B-32": (8,)}
AIMS = {"ViT-B-32": "≥ 20,000", "ViT-L-14": "≥ 2,500"}
SAMPLE, FLAT = (64, 100_000) if GPU else (8, 64)
FILES, LARGE, TEXTS = (24_000, 3000, 30_000) if GPU else (64, 4, 64)
DISTINCT, DISTINCT_LARGE = (512, 64) if GPU else (16, 2)
LIMITS = Limits(10**8, 10**9)
METRICS_PORT = 9464


def main() -> int:
    """Runs the parts that are asked for, or all."""
    DATA.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "exact": exact,
        "forward": forward,
        "compiled": compiled,
        "pressure": pressure,
        "system": system,
    }
    for name in sys.argv[1:] or parts:
        figures: list[Figure] = []
        try:
            for figure in parts[name]():
                figures += show([figure])
        finally:
            if GPU:
                keep(figures, f"python benchmarks/gpu.py {name}", f"gpu-{name}")
    return 0


def folder(model: str) -> Path:
    """A checkpoint of random weights at full size."""
    return make_checkpoint(DATA / f"{model}-random", model)


def exact() -> Iterator[Figure]:
    """Cosines to transformers' own in float32 on the CPU, the smallest of pictures and of texts."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        photos = list(pool.map(photo, range(SAMPLE)))
    texts = [short_text(n) for n in range(SAMPLE)]
    for model in SIZES:
        truth = _reference(folder(model), photos, texts)
        for precision in ("float32", "float16", "bfloat16"):
            settings = {"model": str(folder(model)), "precision": precision, "device": DEVICE}
            ours = ClipEncoder(Settings.load({}, **settings))
            decoded = [decode(each, None, ours.preprocessing, LIMITS) for each in photos]
            pictures = ours.encode_images([e.array for e in decoded if isinstance(e, Pixels)])
            words = np.concatenate(ours.encode_texts(texts))
            for kind, mine, theirs in zip(
                ("pictures", "texts"), (pictures, words), truth, strict=True
            ):
                cosine = float((mine * theirs).sum(axis=1).min())
                name = f"{model} {precision}: smallest cosine of {SAMPLE} {kind}, 1 less"
                yield Figure(name, (1 - cosine) * 1e6, "millionths", "≤ 1,000")


def _reference(source: Path, photos: list[bytes], texts: list[str]) -> list[np.ndarray]:
    plain = CLIPModel.from_pretrained(source, dtype=torch.float32).eval()
    rules = CLIPImageProcessorPil.from_pretrained(source)
    pixels = rules([Image.open(io.BytesIO(each)) for each in photos], return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(source)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        features = (plain.get_image_features(**pixels), plain.get_text_features(**tokens))
    return [torch.nn.functional.normalize(each.pooler_output).numpy() for each in features]


def forward() -> Iterator[Figure]:
    """Pixels to vectors; and the device's own part of it, as it is, in a graph and compiled."""
    for model, sizes in SIZES.items():
        loop = Sequential(folder(model), device=DEVICE)
        rate, flops = products(loop.dtype, DEVICE, 8192), loop.flops_of_an_image()
        most = rate / flops
        yield Figure(f"matrix product 8192³, {loop.dtype}", rate / 1e12, "TFLOP/s")
        yield Figure(f"{model}: an image", flops / 1e9, "GFLOP")
        yield Figure(f"{model}: images that the product's rate would allow", most, "images/s")
        for size in sizes:
            for threads in (1, 2):
                each = loop.images_per_second(size, threads)
                yield Figure(
                    f"{model}: host to host, {size}, threads {threads}",
                    each,
                    "images/s",
                    AIMS[model],
                )
            each = loop.device_per_second(size)
            yield Figure(f"{model}: on the device, {size}, as it is", each, "images/s", AIMS[model])
            yield Figure("… as a share of the product", each / most, "")
            yield Figure(
                f"{model}: transformers' own, {size}", loop.plain_per_second(size), "images/s"
            )
            if GPU:
                each = loop.device_per_second(size, "graph")
                yield Figure(f"{model}: on the device, {size}, graph", each, "images/s")
        for size in (1, 8, *sizes):
            yield Figure(f"{model}: texts, {size}", loop.texts_per_second(size), "texts/s")
        for size in (1, 8):
            yield Figure(f"{model}: host to host, {size}", loop.images_per_second(size), "images/s")
        del loop
        torch.cuda.empty_cache()


def compiled() -> Iterator[Figure]:
    """What torch.compile makes of the device's part."""
    for model in SIZES:
        loop = Sequential(folder(model), device=DEVICE)
        start = monotonic()
        each = loop.device_per_second(256 if GPU else 8, "default")
        yield Figure(f"{model}: on the device, 256, compiled", each, "images/s")
        yield Figure("… and compiling took", monotonic() - start, "s")


def pressure() -> Iterator[Figure]:
    """Memory over many pictures, and too little of it."""
    ours = ClipEncoder(Settings.load({}, model=str(folder("ViT-B-32")), device=DEVICE))
    most = 256 if GPU else 8
    crop = ours.preprocessing.crop
    pixels = list(np.random.default_rng(0).integers(0, 256, (most, *crop, 3), np.uint8))
    random = np.random.default_rng(1)
    done, reserved = 0, {}
    start = monotonic()
    while done < FLAT:
        size = int(random.integers(1, most + 1))
        ours.encode_images(pixels[:size])
        ours.encode_texts([short_text(n) for n in range(size // 16 + 1)])
        done += size
        if GPU:
            reserved[done] = memory(DEVICE)["reserved"]
    took = monotonic() - start
    yield Figure(f"pictures in batches of 1 to {most}, with texts", done / took, "images/s")
    if GPU:
        for share in (0.01, 0.1, 0.5, 1.0):
            at = min(reserved, key=lambda n: abs(n - share * done))
            yield Figure(f"memory reserved after {at:,} pictures", reserved[at] / 2**20, "MiB")
        yield from _short_of_memory(ours, pixels)


def _short_of_memory(ours: ClipEncoder, pixels: list[np.ndarray]) -> Iterator[Figure]:
    """The batch is halved where it must be, the vectors stay, and it grows again."""
    truth = ours.encode_images(pixels)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 200 * 2**20, dtype=torch.uint8, device=DEVICE)
    cosine = float((ours.encode_images(pixels) * truth).sum(axis=1).min())
    yield Figure("with 200 MiB left, at once", ours._images.now, "images")
    yield Figure("… smallest cosine to those with room, 1 less", (1 - cosine) * 1e6, "millionths")
    del taken
    torch.cuda.empty_cache()
    for _ in range(32 * 9):
        ours.encode_images(pixels)
    yield Figure("… with room again, at once", ours._images.now, "images")


def system() -> Iterator[Figure]:
    """A worker as it is by default: files, large ones and texts, and questions beside them.

    Then files alone, without thumbnails, and with Pillow's resizing besides.
    """
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        photos = list(pool.map(photo, range(DISTINCT)))
        large = list(pool.map(large_photo, range(DISTINCT_LARGE)))
    rules = ClipEncoder(Settings.load({}, model=str(folder("ViT-B-32")))).preprocessing
    yield from _decoded("640 × 427", photos[:64], rules)
    yield from _decoded("12 MP", large[:8], rules)
    small, big = _files("p", photos, FILES), _files("l", large, LARGE)
    settings = {"PGCLIP_ROOTS": str(small[0].parent), "PGCLIP_METRICS_PORT": str(METRICS_PORT)}
    with working(folder("ViT-B-32"), **settings) as client:
        _warm(client, small)
        idle = [timed(lambda n=n: client.search(f"idle {n}", timeout=60)) for n in range(100)]
        yield Figure("a new query, idle, p95", quantile(idle, 95), "ms")
        images, texts = ({"image": path} for path in small), (short_text(n) for n in range(TEXTS))
        yield from _watched(client, "640 × 427, files to rows", images, FILES, "≥ 4,000")
        images = ({"image": path} for path in big)
        yield from _watched(client, "12 MP, files to rows", images, LARGE)
        yield from _watched(client, "short texts to rows", ({"text": t} for t in texts), TEXTS)
    for name, more in (
        ("640 × 427, without thumbnails", {}),
        ("640 × 427, without them, resized by Pillow", {"PGCLIP_FAST_DECODE": "off"}),
    ):
        with working(folder("ViT-B-32"), PGCLIP_THUMBNAILS="0", **settings, **more) as client:
            _warm(client, small)
            yield from _watched(client, name, ({"image": path} for path in small), FILES)


def _warm(client: Client, files: list[Path]) -> None:
    client.define_label_set("things", ("cat", "dog", "car", "house", "tree"))
    client.submit_many({"image": path} for path in files[:256]).wait(120)


def _decoded(name: str, some: list[bytes], rules: Preprocessing) -> Iterator[Figure]:
    """One process's rate, by default and without what is quicker or made besides."""
    for how, fast, side in (
        ("by one process, with a thumbnail", True, 256),
        ("by one process", True, 0),
        ("by one process and Pillow alone", False, 0),
    ):
        plan = replace(rules, fast_decode=fast)

        def work(plan: Preprocessing = plan, side: int = side) -> None:
            for each in some:
                decode(each, None, plan, LIMITS, side)

        work()
        yield Figure(f"{name}, decoded {how}", len(some) / timed(work), "images/s")


def _watched(
    client: Client, name: str, items: Iterator[dict[str, object]], count: int, aim: str = ""
) -> Iterator[Figure]:
    """Submits and waits; meanwhile asks, and looks at who takes the processors and the time."""
    before, stages, start = _processors(), _stages(), monotonic()
    busy = Thread(target=lambda: client.submit_many(items).wait(600))
    busy.start()
    asked: list[float] = []
    while busy.is_alive():
        query = f"{name} {len(asked)}"
        asked.append(timed(lambda query=query: client.search(query, timeout=60)))
        sleep(0.02)
    took = monotonic() - start
    yield Figure(name, count / took, "items/s", aim)
    yield Figure("… a new query beside it, p95", quantile([*asked, asked[-1]], 95), "ms")
    for kind, now in _processors().items():
        yield Figure(f"… {kind}", (now - before.get(kind, 0.0)) / took, "processors")
    for stage, now in _stages().items():
        yield Figure(f"… in the stage {stage}", (now - stages[stage]) / took, "batches")


def _stages() -> dict[str, float]:
    """Seconds that batches were in each of the worker's stages so far."""
    with urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics") as answer:
        samples = [
            sample
            for family in text_string_to_metric_families(answer.read().decode())
            for sample in family.samples
        ]
    return {
        sample.labels["stage"]: sample.value
        for sample in samples
        if sample.name == "pgclip_stage_duration_seconds_sum"
    }


def _processors() -> dict[str, float]:
    """Seconds of processors that were used so far, by kind of process."""
    seconds: dict[str, float] = {}
    for process in psutil.process_iter(["pid", "ppid", "name", "cmdline", "cpu_times"]):
        words = " ".join(process.info["cmdline"] or [process.info["name"]])
        ours = process.info["ppid"] == os.getpid()
        if ours and "pgclip worker" in words:
            kind = "the worker"
        elif "postgres" in words:
            kind = "Postgres"
        elif "python" in words and process.info["pid"] != os.getpid():
            kind = "other Python, the decoding processes"
        else:
            continue
        times = process.info["cpu_times"]
        seconds[kind] = seconds.get(kind, 0.0) + times.user + times.system
    return seconds


def _files(name: str, data: list[bytes], count: int) -> list[Path]:
    """Files that differ though their pictures repeat: what follows a JPEG's end is not read."""
    place = DATA / "gpu-workload"
    place.mkdir(exist_ok=True)
    paths = [place / f"{name}{n:06}.jpg" for n in range(count)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for n, path in enumerate(paths):
            pool.submit(path.write_bytes, data[n % len(data)] + n.to_bytes(8))
    return paths


if __name__ == "__main__":
    sys.exit(main())
