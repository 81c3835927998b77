"""Adjustments: under construction."""
