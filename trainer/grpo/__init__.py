"""GRPO: a student answers a question several times, and learns from which answers were better than the others.

Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300) with World2VLM's reward (arXiv 2604.26934), and of
DAPO (arXiv 2503.14476) dynamic sampling and the higher upper clip. Answers are drawn under the tasks' grammars, as they
are when served, so the policy is the student's distribution over what a grammar allows.
"""
