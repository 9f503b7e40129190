from __future__ import annotations

import subprocess

import pytest

from calid.cli.main import main


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", shell])
    assert stop.value.code in (0, None)
    script = capsys.readouterr().out
    assert "reconstruct" in script
    assert "uncertainty" in script


@pytest.mark.slow
def test_bash_completes_verbs_and_options(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    script = tmp_path / "calid"
    script.write_text(capsys.readouterr().out)
    ask = """
    source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
    eval "$(complete -p calid | sed -E 's/.*-F ([^ ]+) .*/\\1/')"
    printf '%s\\n' "${COMPREPLY[@]}"
    """

    def completed(*words: str) -> list[str]:
        command = ["bash", "-c", ask, "bash", str(script), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert "reconstruct" in completed("calid", "rec")
    assert "--uncertainty" in completed("calid", "reconstruct", "--unc")
    assert completed("calid", "nothing-like-it") == []
