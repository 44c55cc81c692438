"""The commands of a page of Markdown, as words."""

import re
import shlex


def blocks(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.M | re.S)


def commands(text):
    """The words of each command of the fenced blocks, in order, with the shell's variables put in."""
    variables = {}
    for block in blocks(text, "sh"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            assigned = re.fullmatch(r"(\w+)=(.*)", words[0], flags=re.S) if len(words) == 1 else None
            if assigned:
                variables[f"${assigned[1]}"] = shlex.split(assigned[2])
            elif words:
                words = [x for word in words for x in variables.get(word, [word])]
                yield from split(words)


def split(words):
    """The commands between ``&&``."""
    if "&&" not in words:
        return [words]
    at = words.index("&&")
    return [words[:at], *split(words[at + 1 :])]


def without_launcher(words):
    """A command without what starts it on several machines or processes."""
    if words[0] == "srun":
        words = words[1:]
    if words[0] != "torchrun":
        return words
    words = words[1:]
    while words[0].startswith("--"):
        words = words[1 if "=" in words[0] or words[0] in ("--standalone", "--no-python") else 2 :]
    words = words[words[0] == "-m" :]
    return words if words[0] == "ames" else ["python", *words]


def program(words):
    """(program, its words): ``ames``, or a script's place in the repository, or another's name."""
    name, *rest = without_launcher(words)
    name = name.removeprefix(".venv/bin/")
    if name in ("python", "python3"):
        name, *rest = [word for word in rest if word != "-u"]
    return name, rest
