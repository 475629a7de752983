"""Facts that several passes need: dependences, orders. Nouns, not actions."""
