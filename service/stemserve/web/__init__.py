"""The HTTP application: who may call, how much, and how answers leave."""
