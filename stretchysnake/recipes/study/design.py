"""StudyRun: what `study motion-digits` trains and measures, as a value; conditions.py lists its trainings."""

from dataclasses import dataclass, field

from stretchysnake.eval.features.placement import check_device
from stretchysnake.flexibility import NANO, VARIANTS
from stretchysnake.models.architectures import config_named
from stretchysnake.recipes.motion_digits import check_asked
from stretchysnake.recipes.side_by_side import check_jobs
from stretchysnake.train.run import OptimConfig

STATIC_PATCHES = "static_tokens"
"""Whose patches Table A2's ablation borrows."""
ABLATED = ("flexivit", "flex_all")
"""Methods of Table A2: those that vary P in training."""
TRANSFERRED = ("vanilla", "static_tokens")
"""Methods of Fig. 4."""
COMPARED = ("vanilla", "static_tokens")
"""Methods that every claim compares, and that the peers of A.2 are trained with."""
EQUAL_TOKENS = (16, 24, 32, 48)
"""S of a static patch that sees 16.25 tokens a frame on average, as static tokens does 16; NANO's sizes give 19.5."""

PARTS = {
    "main": "vanilla and static tokens: Table 1, claims (i) and (ii)",
    "variants": "the other flexible variants: Fig. 3, Table A2",
    "groups": "static tokens with several scales a step",
    "scratch": "(d) static tokens from scratch, for the steps of both trainings",
    "reasons": "(e) why static tokens wins: tokens held, patches seen",
    "peers": "other models: A.2, claim (iv)",
    "lengths": "vanilla trained at the other T: Table A3",
    "far": "(a) scales far outside the sets",
    "views": "(b) vanilla with views at equal GFLOPs",
    "kernels": "(c) vanilla with kernels resized at load time",
    "source": "(f) held-out clips of the source classes",
    "transfer": "fine-tuning: Fig. 4",
}
"""Parts of the study, what matters most first; from `far` on nothing but the models of `main` is needed."""

RATES = {
    f"{peer} {method}": rate
    for peer, rate in {"timesformer-nano": 2e-3, "uniformer-nano": 4e-3, "mvit-nano": 1e-3}.items()
    for method in COMPARED
}
"""Learning rates of conditions (as `study --dry-run` names them) that were measured: of each peer the one of 5e-4,
1e-3, 2e-3 and 4e-3 whose vanilla had the lowest loss after 2,000 steps of seed 0 (`benchmarks/peer_rates.py`).
TimeSformer: 3.74, 3.08, 2.58 and 4.70; MViT: 1.53, 1.25 and 5.23, at 4e-3 chance after 300; UniFormer: 0.88 at 2e-3,
0.44 at 4e-3, 0.49 at 8e-3."""


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """Every table and figure of the paper, on MotionDigits: what is trained, and what is measured."""

    out: str = "runs/study"
    only: tuple[str, ...] = ()
    """Parts or conditions, as --dry-run names them, to be done in this sitting; [] for all. What was finished before is
    kept, and reported with it."""
    data: str | None = None
    """Folder of the MotionDigits videos; null puts them under `out`."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    peers: tuple[str, ...] = ("timesformer-nano", "uniformer-nano", "mvit-nano")
    """Models beside nano VideoMamba (A.2), each trained as vanilla and static tokens and asked for retrieval; [] for
    none. A name of create_model whose native T and S are those of the study."""
    seeds: tuple[int, ...] = (0, 1, 2)
    start_steps: int = 2000
    """Steps from scratch at the native scale, of one vanilla a seed, whose weights every training of the seed goes on
    from, as the paper's go on from a trained model (§4.1); 0 trains all of them from scratch."""
    steps: int = 500
    """Of each training, beside those."""
    batch_size: int = 32
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=4e-3))
    rates: dict[str, float] = field(default_factory=lambda: dict(RATES))
    """Learning rates of conditions, as --dry-run names them, where they are not optim.lr."""
    scales_per_step: tuple[int, ...] = (4,)
    """With how many scales a step static tokens is also trained; [] for one alone."""
    suites: tuple[str, ...] = ("short", "fine", "long")
    frames: tuple[int, ...] = (4, 8, 16)
    """T of the grid; vanilla is also trained at each of them (Table A3)."""
    sizes: tuple[int, ...] = (16, 24, 32, 48, 64)
    far_frames: int = 28
    far_size: int = 112
    """T and S of the cells far outside the sets, decoded from the files; 3.5 times vanilla's own."""
    source_clips: int = 4000
    source_test_clips: int = 400
    """Held-out clips of the classes that are trained on, on which the head is tested; 0 leaves them out."""
    gallery_clips: int = 480
    query_clips: int = 600
    data_seed: int = 0
    device: str = "auto"
    """Where models are trained and measured: "cpu", "cuda" or e.g. "cuda:1"; "auto": a GPU if there is one."""
    finetune_steps: int = 200
    """Steps of fine-tuning on each suite's gallery; 0 leaves fine-tuning out."""
    sgd_probe: bool = False
    """Also a linear probe trained by SGD with augmentation, for as many steps as fine-tuning."""
    num_views: int = 2
    """Clips of each query that fine-tuned models are tested on; MotionDigits is square, so crops would be equal."""
    jobs: int | None = None
    """Trainings side by side, each measured where it was trained; null for what processors and memory are enough for.
    The rows are the same, whatever it is."""
    threads: int = 1
    """Threads of each, on which the last bits of a training depend."""

    def __post_init__(self):
        check_device(self.device)
        check_jobs(self.jobs, self.threads)
        check_asked(self, "variants")
        if len(set(self.peers)) < len(self.peers):
            raise ValueError(f"peers ({', '.join(self.peers)}) must name each model once")
        for peer in self.peers:
            self._check_peer(peer)
        if missing := {"vanilla", "static_tokens"} - set(self.variants):
            raise ValueError(
                f"variants ({', '.join(self.variants)}) must hold {' and '.join(sorted(missing))}: "
                "the paper's claims compare these two"
            )
        native = NANO.native
        if native.num_frames not in self.frames or native.size not in self.sizes:
            raise ValueError(
                f"frames and sizes must hold vanilla's own scale ({native.num_frames} and {native.size}): "
                "claims are made at it and away from it"
            )
        if self.far_size < 1 or self.far_size % native.patch_size:
            raise ValueError(
                f"far_size ({self.far_size}) must be a multiple of the native patch ({native.patch_size})"
            )
        if self.far_frames < 1 or self.source_test_clips < 0:
            raise ValueError(
                f"far_frames ({self.far_frames}) must be at least 1, source_test_clips "
                f"({self.source_test_clips}) at least 0"
            )
        for k in self.scales_per_step:
            if k < 2:
                raise ValueError(
                    f"scales_per_step ({k}) must each be at least 2: one scale a step is trained anyway"
                )
        if bad := {name: rate for name, rate in self.rates.items() if not rate > 0}:
            raise ValueError(f"rates ({bad}) must be positive")
        if min(self.finetune_steps, self.start_steps) < 0 or self.num_views < 1:
            raise ValueError(
                f"finetune_steps ({self.finetune_steps}) and start_steps ({self.start_steps}) must be at least 0, "
                f"num_views ({self.num_views}) at least 1"
            )
        if self.sgd_probe and not self.finetune_steps:
            raise ValueError("sgd_probe takes finetune_steps steps; give more than 0")

    def _check_peer(self, peer: str) -> None:
        found, native = config_named(peer, num_classes=0).native, NANO.native
        if (found.num_frames, found.size) != (native.num_frames, native.size):
            raise ValueError(
                f"peers ({peer}) must be made for T = {native.num_frames}, {native.size} px, as the study's videos and "
                f"its own model are; {peer} is for T = {found.num_frames}, {found.size} px: take one of the nano size"
            )

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(T, S) of the grid."""
        return [(t, s) for t in self.frames for s in self.sizes]

    @property
    def far_cells(self) -> list[tuple[int, int]]:
        """(T, S) far outside the sets: in time, in space, and in both."""
        native = NANO.native
        return [
            (self.far_frames, native.size),
            (native.num_frames, self.far_size),
            (self.far_frames, self.far_size),
        ]

    def wants(self, part: str, condition: str) -> bool:
        """Whether this sitting does that part of the condition."""
        return not self.only or part in self.only or condition in self.only

    @property
    def cross(self) -> list[tuple[int, int]]:
        """The cells that share T or S with vanilla's own scale: where fine-tuned models are tested."""
        native = NANO.native
        return [(t, s) for t, s in self.cells if t == native.num_frames or s == native.size]


def quick_study() -> StudyRun:
    """The same study in a few minutes: every part runs, and nothing is learned well enough to conclude from."""
    return StudyRun(
        out="runs/study-quick",
        seeds=(0,),
        start_steps=10,
        steps=10,
        frames=(4, 8),
        sizes=(16, 32),
        source_clips=320,
        source_test_clips=40,
        gallery_clips=96,
        query_clips=48,
        finetune_steps=10,
    )
