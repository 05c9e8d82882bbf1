"""What a chat template writes, as values: markers and tags, how calls are framed, where text comes from."""
