"""The other side of remote worlds: programs that run in a world's own environment, and what they share.

Nothing here may need more than `requirements.txt` beside each worker installs, nor Python newer than 3.10.
"""
