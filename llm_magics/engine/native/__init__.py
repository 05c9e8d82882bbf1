"""llama.cpp: the library, a model, a context, sampling and constraints. Only this room calls it."""
