"""The paper's counting chain with its equations corrected; each function names the misprint it corrects.

Kept for comparison: nothing in it tells a dead cell from a living one, and it never decides alone.
"""
