"""Invented photographs and the ways copies of photographs differ, for train_photo_copies.py. Needs numpy and Pillow."""
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

SIZES = [(256, 192), (192, 256), (224, 224), (272, 160), (240, 180)]  # width, height


def palette(rng):
    """Six colours that go together: a few hues around one, at different lightness."""
    hue, spread = rng.random(), rng.uniform(0.03, 0.5)
    out = []
    for _ in range(6):
        h, s, v = (hue + rng.normal(0, spread)) % 1, rng.uniform(0.05, 0.9), rng.uniform(0.1, 1.0)
        i, f = int(h * 6), h * 6 - int(h * 6)
        p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
        rgb = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][i % 6]
        out.append(np.array(rgb) * 255)
    return out


def noise(rng, width, height, cells):
    small = rng.random((max(2, cells * height // width), max(2, cells))).astype(np.float32) * 255
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC)) / 255


def texture(rng, width, height, a, b):
    """[height, width, 3] mixing two colours by a pattern."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    kind = rng.integers(6)
    angle, period = rng.uniform(0, math.pi), rng.uniform(5, 50)
    along = x * math.cos(angle) + y * math.sin(angle)
    if kind == 0:
        m = np.clip((along - along.min()) / (np.ptp(along) + 1e-6), 0, 1)
    elif kind == 1:
        m = 0.5 + 0.5 * np.sin(along * 2 * math.pi / period)
    elif kind == 2:
        across = -x * math.sin(angle) + y * math.cos(angle)
        m = ((along // period).astype(int) + (across // period).astype(int)) % 2 * 1.0
    elif kind == 3:
        row = (y // period).astype(int)
        m = np.where(((x + row % 2 * period) % (2 * period) < 2) | (y % period < 2), 0.0, 1.0)
    elif kind == 4:
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        m = np.clip(np.hypot(x - cx, y - cy) / rng.uniform(60, 250), 0, 1)
    else:
        m = sum(noise(rng, width, height, 3 * 2 ** k) / 2 ** k for k in range(4)) / 1.9
    m = np.clip(m + rng.uniform(0, 0.3) * (noise(rng, width, height, int(rng.integers(4, 60))) - 0.5), 0, 1)[..., None]
    return a * (1 - m) + b * m


def shape_mask(rng, width, height):
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    cx, cy = rng.uniform(0, width), rng.uniform(0, height)
    r = rng.uniform(0.05, 0.35) * min(width, height)
    kind = rng.integers(4)
    if kind == 0:
        rx, ry = r * rng.uniform(0.5, 1.5), r * rng.uniform(0.5, 1.5)
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=255)
    elif kind == 1:
        n = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * math.pi, n))
        draw.polygon([(cx + math.cos(t) * r * rng.uniform(0.5, 1.3), cy + math.sin(t) * r * rng.uniform(0.5, 1.3))
                      for t in angles], fill=255)
    elif kind == 2:
        draw.rectangle((cx - r * rng.uniform(0.3, 1.5), cy - r * rng.uniform(0.3, 1.5), cx + r * rng.uniform(0.3, 1.5),
                        cy + r * rng.uniform(0.3, 1.5)), fill=255)
    else:
        points = [(cx + rng.normal(0, r), cy + rng.normal(0, r)) for _ in range(int(rng.integers(2, 6)))]
        draw.line(points, fill=255, width=int(rng.integers(2, 12)), joint="curve")
    return mask


def photo(seed, sibling=0):
    """An RGB picture. Siblings of a seed share the scene's background and half of its things, as pictures of a
    burst or of one room do; they count as different pictures."""
    rng = np.random.default_rng([7, seed])
    width, height = SIZES[rng.integers(len(SIZES))]
    colours = palette(rng)
    ground = texture(rng, width, height, colours[0], colours[1])
    if rng.random() < 0.5:  # a horizon
        line = int(height * rng.uniform(0.3, 0.7))
        ground[line:] = texture(rng, width, height, colours[2], colours[3])[line:]
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    things = int(rng.integers(4, 16))
    for thing in range(things):
        if thing == things // 2 and sibling:
            rng = np.random.default_rng([8, seed, sibling])
        a, b = colours[rng.integers(6)], colours[rng.integers(6)]
        mask = shape_mask(rng, width, height)
        if rng.random() < 0.4:  # a shadow
            shadow = mask.filter(ImageFilter.GaussianBlur(4)).point(lambda v: v // 2)
            moved = Image.new("L", mask.size)
            moved.paste(shadow, (int(rng.integers(2, 9)), int(rng.integers(2, 9))))
            image.paste((0, 0, 0), mask=moved)
        if rng.random() < 0.5:
            mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5))))
        fill = Image.fromarray(np.clip(texture(rng, width, height, a, b), 0, 255).astype(np.uint8))
        image.paste(fill, mask=mask)
    array = np.asarray(image).astype(np.float32)
    light = 0.6 + 0.6 * noise(rng, width, height, 3)[..., None]
    array = array * light + rng.normal(0, rng.uniform(0, 6), array.shape)
    return np.clip(array, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- copies

def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


def scaled(image, factor):
    return image.resize((max(16, int(image.width * factor)), max(16, int(image.height * factor))), Image.BICUBIC)


def cropped(image, rng, area):
    ratio = math.exp(rng.uniform(-0.15, 0.15))
    w, h = min(1, math.sqrt(area) * ratio), min(1, math.sqrt(area) / ratio)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    return image.crop((int(x * image.width), int(y * image.height), max(8, int((x + w) * image.width)),
                       max(8, int((y + h) * image.height))))


def coloured(image, rng, strength):
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(math.exp(rng.uniform(-strength, strength))))
    gains = np.exp(rng.uniform(-strength / 3, strength / 3, 3))
    array = np.asarray(image).astype(np.float32) / 255 * gains
    array = np.clip(array, 0, 1) ** math.exp(rng.uniform(-strength / 2, strength / 2))
    return Image.fromarray((array * 255).astype(np.uint8))


def overlaid(image, rng):
    image = image.copy()
    draw = ImageDraw.Draw(image)
    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    if rng.random() < 0.5:
        text = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(4, 16))))
        draw.text((float(rng.uniform(0, image.width * 0.6)), float(rng.uniform(0, image.height * 0.9))), text, fill=colour,
                  font_size=float(rng.uniform(10, 28)))
    else:
        edge = int(rng.uniform(0.02, 0.07) * min(image.size)) + 1
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=edge)
    return image


def view(array, rng):
    """One training view; half of them are nearly the original."""
    image = Image.fromarray(array)
    if rng.random() < 0.35:
        return jpeg(image, rng.integers(50, 96)) if rng.random() < 0.5 else image
    if rng.random() < 0.25:
        image = image.rotate(float(rng.uniform(-8, 8)), Image.BILINEAR)
    if rng.random() < 0.55:
        image = cropped(image, rng, rng.uniform(0.5, 1.0))
    if rng.random() < 0.3:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    if rng.random() < 0.25:
        image = image.transpose([Image.ROTATE_90, Image.ROTATE_180, Image.ROTATE_270][rng.integers(3)])
    if rng.random() < 0.6:
        image = coloured(image, rng, 0.4)
    if rng.random() < 0.08:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.2:
        image = overlaid(image, rng)
    if rng.random() < 0.4:
        image = scaled(image, rng.uniform(0.25, 1.2))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2))))
    if rng.random() < 0.5:
        image = jpeg(image, rng.integers(15, 90))
    return image


def copies():
    """Name -> what makes such a copy of an image, for evaluation."""
    return {
        "jpeg, quality 30": lambda im, rng: jpeg(im, 30),
        "half the size": lambda im, rng: scaled(im, 0.5),
        "cropped to 80 % of the area": lambda im, rng: cropped(im, rng, 0.8),
        "cropped to 60 % of the area": lambda im, rng: cropped(im, rng, 0.6),
        "colours changed": lambda im, rng: coloured(im, rng, 0.35),
        "grey": lambda im, rng: im.convert("L").convert("RGB"),
        "text or frame on it": lambda im, rng: overlaid(im, rng),
        "mirrored": lambda im, rng: im.transpose(Image.FLIP_LEFT_RIGHT),
        "turned by 90 degrees": lambda im, rng: im.transpose(Image.ROTATE_90),
        "cropped, coloured, half size, jpeg 40": lambda im, rng: jpeg(scaled(coloured(cropped(im, rng, 0.75), rng, 0.3), 0.5), 40),
    }
