"""Section 3 of the paper without torch or lightning: numbers in, decisions out."""
