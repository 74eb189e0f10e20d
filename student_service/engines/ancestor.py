"""Imported by the process that all workers are forked from, and by nothing else: it stands back behind the service.

A fork takes a core for a few hundredths of a second, and so do a worker's first steps; live requests go first.
"""

import os

NICENESS = 10
"""Of a worker while live queries come to it: behind whatever accepts, refuses and keeps time."""

os.nice(NICENESS)
