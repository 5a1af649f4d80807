"""Projects as other people write them, each in a script of its own: `python FILE FOLDER` plans, follows and tests.

A script prints what it has come to as JSON, in its last line. None of them is made for planning: what they build is
what users of Lightning build. `test_projects.py` kills them and starts them again.
"""
