"""One file a command of `rbft`: its arguments, and what is printed."""

COMMANDS = {
    "fit": "rbft.commands.fit",
    "init": "rbft.commands.init",
    "fetch": "rbft.commands.fetch",
    "check": "rbft.commands.check",
    "predict": "rbft.commands.predict",
    "export": "rbft.commands.export",
    "serve": "rbft.commands.serve",
    "compare": "rbft.commands.compare",
    "label": "rbft.commands.label",
    "suggest": "rbft.commands.suggest",
    "sweep": "rbft.commands.sweep",
    "report": "rbft.commands.report",
    "rationales": "rbft.commands.rationales",
    "doctor": "rbft.commands.doctor",
    "completion": "rbft.commands.completion",
}
"""Modules by command: each has a `parser()` and a `run(args)` that returns the exit code."""
CONTINUING = ("fit", "compare", "sweep")
"""Those that go on where they were stopped; others begin again."""
