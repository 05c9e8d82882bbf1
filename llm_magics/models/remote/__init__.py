"""A model on a server: any service with OpenAI's chat completions, e.g. llama-server, vLLM, Ollama, LM Studio."""
