"""The fault campaign: a fleet of real processes and servers that breaks while clients use it.

``python -m tests.faults`` runs it. ``kinds`` are the faults, ``errands`` what clients want, and
``laws`` what must hold after each round. A new capability adds an entry to each of the three.
"""
