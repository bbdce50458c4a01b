"""Gaussian mixtures, in the order of the mathematics: parameters, EM, criteria, selection, assignment."""
