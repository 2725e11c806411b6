"""The nanotox workstation: datasets, GAN, co-training, networks and the int8 export."""
