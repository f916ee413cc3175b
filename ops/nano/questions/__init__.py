"""Questions about drawn pictures, with the one answer that is right.

How a question is put decides how the answer is put, so that an answer can be graded by equality.
"""
