"""`seva.modules.conditioner`."""

from seva.model import OnGpu


class CLIPConditioner(OnGpu):
    pass
