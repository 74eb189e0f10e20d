"""Published question sets (SAT, VSI-Bench, MindCube): asked, scored and held against guessing."""

from trainer.suites.answerers import Answerer, Blind, Query
from trainer.suites.asking import Answered, Order, Reply, ask, sample
from trainer.suites.items import Kind, SuiteItem
from trainer.suites.suite import SUITES, Suite
from trainer.suites.summary import Change, Figures, compare, summarise

__all__ = [
    "SUITES",
    "Answered",
    "Answerer",
    "Blind",
    "Change",
    "Figures",
    "Kind",
    "Order",
    "Query",
    "Reply",
    "Suite",
    "SuiteItem",
    "ask",
    "compare",
    "sample",
    "summarise",
]
