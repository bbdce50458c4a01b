"""What runs on the workers, one function a stage: read from the run, compute, commit to the run.

Every function takes the run and an item (a partition, a candidate, ...), can be repeated at any time, and returns
nothing: data moves only through the store.
"""
