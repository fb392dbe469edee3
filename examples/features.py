"""Features of your own videos, at three scales of one model.

python examples/features.py stretchysnake-nano clip.mp4 another.webm

The weights are nano ones that came with the package; a file, or another name (`stretchysnake weights`), does as well.
"""

import sys

import torch

import stretchysnake


def main(weights: str, *videos: str) -> None:
    for num_frames, size in ((4, 16), (8, 32), (16, 48)):
        found = stretchysnake.embed(videos, weights=weights, num_frames=num_frames, size=size)
        for _, reason in found.failures:
            print("skipped", reason)
        unit = torch.nn.functional.normalize(found.features, dim=1)
        print(f"T={num_frames} S={size}: {tuple(found.features.shape)}, cosines between the videos")
        print(unit @ unit.T)


if __name__ == "__main__":
    main(*sys.argv[1:])
