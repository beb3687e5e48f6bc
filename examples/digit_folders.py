"""Write scikit-learn's 1,797 handwritten digits as image files, a folder for each class.

python -m cortado.examples.digit_folders FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path


def write(folder: Path) -> int:
    """Write ``folder/<digit>/<number>.png``; how many images there are."""
    import cv2
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    return len(pixels)


if __name__ == "__main__":
    print(f"wrote {write(Path(sys.argv[1]))} images")
