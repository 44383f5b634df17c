"""Warmstart: pretrain, finetune, and measure what the pretraining bought."""
