"""What a training keeps, and whether a folder holds this very run. To be read in this order:

state.py       what changes while a run trains
checkpoint.py  a checkpoint on disk: written whole or not at all, believed only when every byte is as written
sharding.py    weights and moments sliced over the ranks, and their slices in a checkpoint
saving.py      from the state to a checkpoint: when, how, which are kept
restoring.py   from a checkpoint to the state: at the start, and when a run has to go back
outputs.py     what lies beside the checkpoints: the run as started, its log, the finished weights
data_stamp.py  what the run's data was when it began
identity.py    whose a folder is: this very run, or another
"""
