"""`hyvideo.commons.parallel_states`."""

state = None


def initialize_parallel_state(sp=1):
    global state
    state = sp
    return state
