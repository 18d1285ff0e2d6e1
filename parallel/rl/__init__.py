"""Reinforcement learning of language models: answers are written, judged, trained on, and the new weights sent round."""
