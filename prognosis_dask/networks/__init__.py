"""Clips, networks, weights and the engines that run them."""
