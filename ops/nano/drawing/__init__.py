"""Pictures drawn by seed, with what is known of each: the data pixtral-nano is made of.

Nothing here is downloaded. Three splits never share a seed, a typeface or a word: ``train``,
``validation`` and ``test``.
"""
