"""The generated data set: drawn landmarks from several viewpoints."""
