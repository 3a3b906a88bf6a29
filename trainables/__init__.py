"""Train one student on a distilled dataset: plain PyTorch, no Ray, no MLflow.

Symbols used in every docstring of this package:

====  =======================================================  ==========
B     images in a batch                                        B >= 1
C     classes                                                  C >= 2
N     distilled images                                         N >= 1
V     views: the distilled set under fixed augmentation draws  V >= 1
s     student logits, (B, C)                                   any real
t     teacher logits, (B, C)                                   any real
y     hard labels, (B,) indices or (B, C) mixed one-hot rows   0 .. C - 1
T     temperature, dimensionless                               T > 0
w     refinement strength                                      0 <= w < 1
alpha label smoothing                                          0 <= alpha < 1
====  =======================================================  ==========

Accuracy is a fraction in [0, 1]. Loss values are in nats where they are entropies, else dimensionless.
"""
