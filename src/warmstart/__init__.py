"""Warmstart: pretrain, finetune, and measure the effect of the pretraining."""
