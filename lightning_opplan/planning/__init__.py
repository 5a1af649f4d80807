"""The paper's section 3 without torch or Lightning: numbers in, decisions out."""
