"""Moving in from hermes-agent: its `state.db` and `response_store.db` become facts."""
