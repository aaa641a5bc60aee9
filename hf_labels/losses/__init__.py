"""Losses: pure functions on tensors, one file per method, and `soft_targets` that many methods share.

Nothing is imported here: `from hf_labels.losses.soft_targets import soft_cross_entropy`.
"""
