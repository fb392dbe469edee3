"""Which output of a trained head is which class of a list: by name, where the weights know the names."""

from collections.abc import Sequence

from stretchysnake.data.records import VideoRecord

WAY_OUT = "leave these videos out, or give weights fine-tuned on this data set's training list"
BY_NUMBER = "class names unknown: matched by number"


def head_labels(
    classes: Sequence[str] | None,
    num_outputs: int,
    gallery: Sequence[VideoRecord],
    queries: Sequence[VideoRecord],
) -> tuple[list[int], str]:
    """(output of the head that is right for each query, note); `classes` names the outputs, None where not known.

    ValueError for a class that the head does not have, a query without a name among named ones, a number
    outside 0..num_outputs-1, and for named lists whose number of classes is not that of a head without names:
    the lists number their own classes, so another number of them would shift every label.
    """
    everything = [*gallery, *queries]
    numbered = all(not r.class_name or r.class_name.isdecimal() for r in everything)
    if not num_outputs:
        raise ValueError(f"weights classify 0 classes; {WAY_OUT.split(', or ')[1]}")
    if classes is not None and (not numbered or all(name.isdecimal() for name in classes)):
        return _by_name(classes, queries, numbered), ""
    if numbered:
        labels = [int(r.class_name) if r.class_name else r.label for r in queries]
        if labels and not max(labels) < num_outputs:
            raise ValueError(
                f"weights classify {num_outputs} classes, and the queries have labels up to {max(labels)}; "
                f"{WAY_OUT}"
            )
        return (
            labels,
            BY_NUMBER if classes is None else "lists without class names: matched by number",
        )
    if (count := len({record.label for record in everything})) != num_outputs:
        raise ValueError(
            f"weights classify {num_outputs} classes and do not say which, and gallery and queries hold {count}, so "
            "their numbers cannot be matched; give lists of all classes, or integer labels that are the head's "
            "numbers, or train again: weights of this version hold the names"
        )
    return [record.label for record in queries], BY_NUMBER


def _by_name(classes: Sequence[str], queries: Sequence[VideoRecord], numbered: bool) -> list[int]:
    outputs = {name: number for number, name in enumerate(classes)}
    labels, unknown = [], {}
    for record in queries:
        name = record.class_name or (str(record.label) if numbered else "")
        if not name:
            raise ValueError(
                f"query {record.path} has no class name (label {record.label}), and others have one; "
                "name the classes of all, as the weights do"
            )
        if name not in outputs:
            unknown[name] = unknown.get(name, 0) + 1
        labels.append(outputs.get(name, -1))
    if unknown:
        shown = ", ".join(sorted(unknown)[:8]) + (", …" if len(unknown) > 8 else "")
        held = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
        raise ValueError(
            f"classes ({shown}) of {sum(unknown.values())} queries are none of the {len(classes)} that these weights "
            f"were trained on ({held}); {WAY_OUT}"
        )
    return labels
