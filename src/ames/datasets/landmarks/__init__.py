"""The generated data set: landmarks, drawn or made of photographs, from several viewpoints."""
