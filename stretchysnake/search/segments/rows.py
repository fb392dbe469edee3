"""What a row of an index is of: a part of a video, and the file as it was."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video as it was when its features were made."""

    path: str
    size: int
    mtime_ns: int
    sha256: str
    group: str = ""
    """Videos of one group are parts of one recording, e.g. `g01` of UCF-101; "" where nothing is known."""
    class_name: str = ""


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """What one row of the features is of."""

    file: VideoFile
    start: float = 0.0
    end: float | None = None
    """Seconds; None means the video's end."""
    repeated: bool = False
    """Fewer than T different frames were there."""

    @classmethod
    def from_dict(cls, values: dict) -> "IndexRow":
        part = {name: values[name] for name in ("start", "end", "repeated")}
        names = [field.name for field in fields(VideoFile)]
        return cls(file=VideoFile(**{name: values[name] for name in names}), **part)

    def to_dict(self) -> dict:
        part = {"start": self.start, "end": self.end, "repeated": self.repeated}
        return {**asdict(self.file), **part}
