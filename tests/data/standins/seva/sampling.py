"""`seva.sampling`."""


class DiscreteDenoiser:
    def __init__(self, num_idx=1000, device="cpu"):
        assert device == "cuda"
        self.discretization = object()
