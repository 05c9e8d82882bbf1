"""The engine: llama.cpp behind plain, picklable values. The only room that imports llama_cpp, and it does so lazily."""
