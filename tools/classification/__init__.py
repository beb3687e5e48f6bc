"""Trained nets as classifiers of images: what eval, classify and programs open them with."""
