"""What runs on the workers, one task function a stage: read from the run, compute, give what is to be committed.

A task takes the run and an item (a partition, a candidate, ...) and can be repeated at any time: data moves only
through the store. The modules are the parts of the flow, and each declares its stages; ``STAGES`` lists them.
"""
