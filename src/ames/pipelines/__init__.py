"""Stages in a row, path to path: prepare, demo."""
