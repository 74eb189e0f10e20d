"""What the student can be asked about, as words: the tokenizer keeps each of these as one token."""

import string

from world2vlm.actions import Primitive, format_magnitude
from world2vlm.boxes import SCALE
from world2vlm.tasks import TASKS

CATEGORY_WORDS = (
    "armchair", "ball", "bathtub", "bed", "bench", "bookcase", "bookshelf", "bottle", "bowl", "box", "bucket",
    "cabinet", "chair", "chest", "clock", "couch", "crate", "cup", "desk", "door", "dresser", "fan", "fridge",
    "guitar", "lamp", "microwave", "mirror", "mug", "nightstand", "ottoman", "oven", "person", "piano", "picture",
    "plant", "pot", "radiator", "rug", "shelf", "sink", "sofa", "speaker", "stool", "stove", "suitcase", "table",
    "television", "toilet", "vase", "wardrobe", "washer", "window",
)  # fmt: skip
COLOUR_WORDS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black", "brown", "grey", "cyan", "pink")
# What the base student's own questions are made of (trainer.perception builds them from these pieces).
PERCEPTION_PIECES = (
    "Where is the ", "What is at ", "Is there a ", "Is the ", " left of the ", "How many ", "Which side is the ",
    " on", " in the first image", " in the second image", "?", "middle", "left", "right", "background",
    "What is in bbox ", "s are there",
)  # fmt: skip


def number_words() -> list[str]:
    """Integers 0-1000 (coordinates, degrees, counts) in order: one token each."""
    return [str(value) for value in range(SCALE + 1)]


def decimal_words() -> list[str]:
    """Distances under 6 m on World2VLM's 0.1 m grid that are no integers."""
    return [format_magnitude(tenths / 10) for tenths in range(1, 60) if tenths % 10]


def template_pieces() -> list[str]:
    """The constant pieces between the slots of the eight tasks' templates."""
    return [literal for task in TASKS.values() for literal, *_ in string.Formatter().parse(task.template) if literal]


def all_words() -> list[str]:
    """Every word that must be one token, without repeats, in a fixed order."""
    motions = [f"{primitive.value} " for primitive in Primitive] + [" meters", " degrees", "; ", " and "]
    answers = ["yes", "no", "true", "false", "[", ", ", "]", " "]
    words = [*number_words(), *decimal_words(), *template_pieces(), *motions, *answers]
    words += [*CATEGORY_WORDS, *COLOUR_WORDS, *PERCEPTION_PIECES]
    return list(dict.fromkeys(words))
