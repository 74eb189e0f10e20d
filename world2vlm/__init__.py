"""World2VLM: teach a vision-language model to imagine camera motion, and serve it without a world model."""

__version__ = "0.1.0"
