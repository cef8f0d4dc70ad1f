"""Weights for backbones, learnt before any product is inspected: `adbench pretrain`."""
