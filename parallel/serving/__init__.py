"""Prefill and decode: phases priced alone, engines under a load, and pools that hand caches on."""
