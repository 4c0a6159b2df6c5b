"""The software eSwitch as a sceptic would try it: Debian's testpmd, files of its commands, and packets.

Each file of tests/eswitch/ is one test; `lab.flowscript` says how to read it.
"""

from pathlib import Path

import pytest
from eswitch.packets import frames
from lab.flowscript import Script, run, start

SCRIPTS = sorted((Path(__file__).parent / "eswitch").glob("*.testpmd"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path, tmp_path):
    script = Script(path)
    log = tmp_path / "testpmd.log"
    with start(script, log) as testpmd:
        deviations = run(script, testpmd, frames())
        if deviations:
            pytest.fail(f"{len(deviations)} of {len(script.steps)} steps:\n" + "\n".join(deviations), pytrace=False)
        assert testpmd.quit() == 0, f"testpmd did not end well:\n{log.read_text()[-3000:]}"
    assert "internal error" not in log.read_text()
