"""Objectives of training stages."""
