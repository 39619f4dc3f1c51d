"""Checkpoints with orbax, and nobody else uses it: the latest and the best, each with what is needed to trust it.

`folder.py` saves and reads the steps of a run, `opening.py` opens orbax's manager of them, `damage.py` compares a step
with its sums before it is read and says what to do about a damaged one, `following.py` reads from a run that trains on;
`variables.py` is a network without a run. `shapes.py` says of which network a checkpoint is, `quiet.py` which words of
orbax reach a user.
"""
