"""Noise images with the spectrum of natural images, used as benchmark inputs."""

import io

import numpy as np
from PIL import Image


def draw_noise(width: int, height: int, seed: int) -> Image.Image:
    """Return an RGB image with a 1/f amplitude spectrum, as in natural images (Field 1987)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        values = np.fft.irfft2(phase / frequency, s=(height, width))
        channels.append(np.clip(128 + 55 * values / values.std(), 0, 255))
    # Mix the channels, because the channels of photos are correlated.
    luma = channels[0]
    mixed = [0.8 * luma + 0.2 * channel for channel in channels]
    return Image.fromarray(np.stack(mixed, axis=2).astype(np.uint8))


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """Return the bytes of an image encoded as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
