"""Puts back what Python 3.12 removed from :mod:`configparser`; imported by ``oldconfigparser.pth`` at start-up.

Part of the isolated environment in which pyradiomics is built, never of the one in which the project runs.
"""

import configparser

if not hasattr(configparser, "SafeConfigParser"):
    configparser.SafeConfigParser = configparser.RawConfigParser  # type: ignore[attr-defined]
    configparser.RawConfigParser.readfp = configparser.RawConfigParser.read_file  # type: ignore[attr-defined]
