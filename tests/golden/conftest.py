"""Says at the end of the run how many golden cases of how many files passed."""


def pytest_terminal_summary(terminalreporter):
    files: dict[str, list[bool]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            name = dict(getattr(report, "user_properties", ())).get("golden_file")
            if name and report.when == "call":
                files.setdefault(name, []).append(outcome == "passed")
    if files:
        cases = [passed for results in files.values() for passed in results]
        whole = sum(all(results) for results in files.values())
        terminalreporter.write_line(
            f"golden: {sum(cases)} of {len(cases)} cases passed, {whole} of {len(files)} files whole"
        )
