"""A training forks one small process at its start; the decoders, and those that replace them, are forked there."""

import os

from short_training import ShortTraining

from stretchysnake.data.processes import decoder_pool


def test_a_training_forks_once_at_its_start_whatever_is_replaced(
    clip_folder, tmp_path, monkeypatch
):
    case, events, whole = ShortTraining(clip_folder, tmp_path, monkeypatch), [], os.fork
    started = decoder_pool.DecodingProcess

    def counted():
        events.append("fork")
        return whole()

    class Counted(started):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            events.append("decoder")

    monkeypatch.setattr(os, "fork", counted)
    monkeypatch.setattr(decoder_pool, "DecodingProcess", Counted)
    monkeypatch.setattr(decoder_pool, "_FILES_PER_WORKER", 2)
    alone = case.train(steps=4)
    assert events == ["fork"]
    done = case.train(steps=4, num_workers=1)
    assert events == ["fork", "fork", *["decoder"] * 4]  # of eight clips, two each
    assert done.result.losses == alone.result.losses
