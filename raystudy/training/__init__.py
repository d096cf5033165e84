"""The one training loop, and what it needs to know about its surroundings: a Session."""
