"""Trees in the official layouts: text files with the line ends asked for, and empty files in place of videos."""

import json
from pathlib import Path


def write(root, files):
    """Write {path: text, or an object for JSON}; None makes an empty file."""
    for name, content in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.touch()
        elif isinstance(content, str):
            path.write_bytes(content.encode("utf-8"))
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
    return Path(root)


def touch(root, *names):
    return write(root, dict.fromkeys(names))


def rows(records, root):
    """(path inside root, label, class name) of every record."""
    return [
        (str(Path(record.path).relative_to(root)), record.label, record.class_name)
        for record in records
    ]
