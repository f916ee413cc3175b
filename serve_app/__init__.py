"""Pixtral on Ray Serve: gateway, preprocessing, vision and decoder tiers (see ``app.py``)."""
