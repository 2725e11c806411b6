"""Scores of cells found, of counts and of probabilities, each with an interval over independent groups.

`detection` matches found to true cells, `counts` compares numbers, `binary` judges probabilities,
`resampling` gives intervals. Results hold None where a figure does not exist (no cell, one class only), never
NaN.
"""
