"""Image analysis as functions of arrays: no clock, file, socket, log or hidden randomness.

The paper that equations and figures are cited from, here and below, is

    B. Saini, S. Srivastava, A. K. Bajpai: Deep CNN Model for Nanotoxicity Classification Using
    Microscopic Images. Int. J. Advance Soft Compu. Appl. 12(2), July 2020, ISSN 2074-8523.

Sizes are micrometers; `pyramid` brings each frame to one working scale, and everything below it reads
its levels.
"""
