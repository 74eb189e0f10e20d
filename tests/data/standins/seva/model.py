"""`seva.model`."""


class OnGpu:
    """Something that goes to the GPU as a torch module does; the tests' machine has none."""

    device = "cpu"

    def to(self, device):
        self.device = device
        return self

    def eval(self):
        return self


class Seva(OnGpu):
    pass


class SGMWrapper(OnGpu):
    def __init__(self, module):
        assert isinstance(module, Seva)
        self.module = module
